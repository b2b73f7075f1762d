// What is seen is a function of `state`; the address bar holds it, so that a link shows the same.
import { decode, encode, metadata, sample } from "./server.js";

const SAMPLES = 24;
const STEPS = 8;
const FIRST_SLIDERS = 12;
const LARGEST_SEED = Number.MAX_SAFE_INTEGER; // JSON numbers are exact up to here
const SLIDER_REACH = 4; // standard deviations of the prior

const $ = (id) => document.getElementById(id);
const tile = { height: 0, width: 0, channels: 0 };
const state = { seed: 0, first: 0, temperature: 1, from: 3, to: 8, open: 0, z: null };
let model;
let opened; // { title, z, own }: the code that Reset returns to, and the uploaded pixels if there are any
let z; // float32 [latent_dim] of the picture that is shown

// ---- start

start();

async function start() {
  try {
    model = await metadata();
    [tile.height, tile.width, tile.channels] = model.image_shape;
    build();
    document.querySelector("main").hidden = false;
    await restore();
  } catch (error) {
    say(error);
  }
}

function build() {
  const facts = [`${tile.width} × ${tile.height} pixels`, `${model.latent_dim} latent dimensions`, model.likelihood];
  $("model").textContent = facts.join(" · ");
  $("latent").hidden = $("walking").hidden = !model.graphs.includes("decoder");
  $("own").hidden = $("latent").hidden || !model.graphs.includes("encoder");
  for (const [parent, count] of [["grid", SAMPLES], ["walk", STEPS]]) buildTiles($(parent), count);
  buildSliders();
  listen();
}

function buildTiles(parent, count) {
  for (let i = 0; i < count; i++) {
    const button = document.createElement("button");
    button.type = "button";
    button.tabIndex = i ? -1 : 0; // Tab enters the grid once; the arrow keys move within it
    button.append(document.createElement("canvas"));
    parent.append(button);
  }
  parent.addEventListener("keydown", moveFocus);
}

function buildSliders() {
  for (let i = 0; i < model.latent_dim; i++) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "range", step: 0.01 });
    Object.assign(input, { min: -SLIDER_REACH, max: SLIDER_REACH });
    input.addEventListener("input", () => slide(i, input.valueAsNumber));
    label.append(`z${i + 1}`, input, document.createElement("output"));
    label.hidden = i >= FIRST_SLIDERS;
    $("sliders").append(label);
  }
  $("all").hidden = model.latent_dim <= FIRST_SLIDERS;
  $("all").textContent = `All ${model.latent_dim}`;
}

function listen() {
  for (const name of ["seed", "from", "to"]) $(name).addEventListener("change", () => setSeed(name, $(name).value));
  $("reseed").addEventListener("click", () => setSeed("seed", crypto.getRandomValues(new Uint32Array(1))[0]));
  $("temperature").addEventListener("input", () => change({ temperature: $("temperature").valueAsNumber }));
  $("previous").addEventListener("click", () => change({ first: Math.max(0, state.first - SAMPLES) }));
  $("next").addEventListener("click", () => change({ first: state.first + SAMPLES }));
  $("reset").addEventListener("click", () => show(opened));
  $("all").addEventListener("click", toggleSliders);
  $("download").addEventListener("click", download);
  $("copy").addEventListener("click", copyLink);
  $("file").addEventListener("change", () => openFile($("file").files[0]));
  listenForDrops();
  addEventListener("hashchange", () => restore().catch(say));
}

// ---- the state and the address

async function restore() {
  const link = new URLSearchParams(location.hash.slice(1));
  for (const name of ["seed", "first", "from", "to", "open"]) {
    const number = Number(link.get(name) ?? NaN);
    if (Number.isSafeInteger(number) && number >= 0) state[name] = number;
  }
  const temperature = Number(link.get("temperature") ?? NaN);
  if (temperature >= 0 && temperature <= Number($("temperature").max)) state.temperature = temperature;
  state.open %= SAMPLES;
  state.z = link.get("z");
  await Promise.all([drawSamples(), drawWalk()]);
  if (!state.z) return;
  try {
    await openCode(fromText(state.z));
  } catch (error) {
    state.z = null;
    await drawSamples();
    throw error;
  }
}

function setSeed(name, text) {
  const seed = Number(text);
  if (text === "" || !Number.isSafeInteger(seed) || seed < 0) {
    say(new Error(`the seed is ${text || "empty"}; expected a whole number from 0 to ${LARGEST_SEED}`));
    return;
  }
  change(name === "seed" ? { seed, first: 0 } : { [name]: seed });
}

function change(changed) {
  Object.assign(state, changed);
  const ends = "from" in changed || "to" in changed;
  if (!ends) {
    delete opened?.index; // Reset would lead to an image that is no longer in the grid
    soon("samples", drawSamples);
  }
  if (ends || "temperature" in changed) soon("walk", drawWalk);
}

const remember = debounced(() => {
  const { z: text, open, ...numbers } = state;
  const link = new URLSearchParams({ ...numbers, ...(text ? { z: text } : { open }) });
  history.replaceState(null, "", `#${link}`);
}, 100);

// ---- samples and the walk

async function drawSamples(signal) {
  const { images, z: codes } = await sample([state.seed], state.first, SAMPLES, state.temperature, signal);
  $("seed").value = state.seed;
  $("temperature").value = state.temperature;
  $("temperature-value").textContent = state.temperature.toFixed(2);
  $("range").textContent = `${state.first} to ${state.first + SAMPLES - 1}`;
  $("previous").disabled = !state.first;
  const name = (i) => `Seed ${state.seed}, image ${state.first + i}`;
  const open = (i) => show({ title: name(i), z: codes[i], pixels: images[i], index: i });
  fillTiles($("grid"), images, name, open);
  if (!state.z) open(state.open);
  remember();
}

async function drawWalk(signal) {
  if ($("walking").hidden) return;
  const ends = await sample([state.from, state.to], 0, 1, state.temperature, signal);
  const codes = spherical(...ends.z, STEPS);
  const images = await decode(codes, signal);
  $("from").value = state.from;
  $("to").value = state.to;
  const name = (i) => `Seed ${state.from} to ${state.to}, step ${i + 1} of ${STEPS}`;
  fillTiles($("walk"), images, name, (i) => show({ title: name(i), z: codes[i], pixels: images[i] }));
  remember();
}

function fillTiles(parent, images, name, open) {
  for (const [i, button] of [...parent.children].entries()) {
    paint(button.firstChild, images[i]);
    button.setAttribute("aria-label", name(i));
    button.setAttribute("aria-pressed", "false");
    button.onclick = () => {
      open(i);
      press(button);
      reveal();
    };
  }
}

function press(button) {
  for (const other of document.querySelectorAll(".tiles button")) other.setAttribute("aria-pressed", other === button);
}

function moveFocus(event) {
  const tiles = [...event.currentTarget.children];
  const columns = getComputedStyle(event.currentTarget).gridTemplateColumns.split(" ").length;
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const next = tiles[tiles.indexOf(event.target) + by];
  if (!next) return;
  event.preventDefault();
  for (const button of tiles) button.tabIndex = button === next ? 0 : -1;
  next.focus();
}

/** Points along the great circle between two latents; a straight line would pass too near the centre. */
function spherical(start, end, steps) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const lengths = Math.sqrt(dot(start, start) * dot(end, end));
  const angle = lengths ? Math.acos(Math.min(1, Math.max(-1, dot(start, end) / lengths))) : 0;
  const share = Math.sin(angle) < 1e-4 ? (t) => t : (t) => Math.sin(t * angle) / Math.sin(angle);
  return Array.from({ length: steps }, (_, step) => {
    const t = step / (steps - 1);
    return start.map((value, i) => share(1 - t) * value + share(t) * end[i]);
  });
}

// ---- the opened image

/** Open a code whose pixels are known. */
function show(what) {
  cancel("decode");
  opened = what;
  z = what.z.slice();
  state.z = what.index === undefined ? toText(z) : null;
  if (what.index !== undefined) {
    state.open = what.index;
    press($("grid").children[what.index]);
  } else press(null);
  $("opened-title").textContent = what.title;
  $("reset").disabled = true;
  $("compared").hidden = $("caption").hidden = !what.own;
  if (what.own) paint($("original"), what.own);
  drawSliders();
  drawPicture(what.pixels);
  remember();
}

function reveal() {
  if (matchMedia("(max-width: 52rem)").matches) $("opened").scrollIntoView(); // on a phone it is below
}

async function openCode(code) {
  if (code.length !== model.latent_dim || !code.every(Number.isFinite)) throw new Error("the link is of another model");
  show({ title: "A linked image", z: code, pixels: (await decode([code]))[0] });
}

function slide(dimension, value) {
  z[dimension] = value;
  state.z = toText(z);
  $("reset").disabled = false;
  press(null);
  drawSliders();
  decodeLatest();
  remember();
}

// One request at a time, and then the newest code: a drag shows every picture that the server has time for.
let wanted = false;
async function decodeLatest() {
  wanted = true;
  if (running.has("decode")) return;
  while (wanted) {
    wanted = false;
    await run("decode", async (signal) => drawPicture((await decode([z], signal))[0]));
  }
}

function drawPicture(pixels) {
  paint($("picture"), pixels);
  if (!opened.own) return;
  const difference = pixels.map((value, i) => Math.abs(value - opened.own[i]));
  paint($("difference"), difference);
  const mean = difference.reduce((sum, value) => sum + value, 0) / difference.length / 255;
  $("error").textContent = `Error ${(100 * mean).toFixed(1)}\u00a0%`;
}

function drawSliders() {
  for (const [i, label] of [...$("sliders").children].entries()) {
    const [, input, output] = label.childNodes;
    input.value = z[i];
    output.textContent = z[i].toFixed(2).replace("-", "−");
  }
}

function toggleSliders() {
  const all = $("all").getAttribute("aria-expanded") === "false";
  $("all").setAttribute("aria-expanded", all);
  $("all").textContent = all ? `First ${FIRST_SLIDERS}` : `All ${model.latent_dim}`;
  for (const [i, label] of [...$("sliders").children].entries()) label.hidden = !all && i >= FIRST_SLIDERS;
}

function download() {
  $("picture").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    link.download = `${$("opened-title").textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy link"), 1500);
  } catch {
    say(new Error("the browser does not let this page copy; the link is in the address bar"));
  }
}

// ---- an image of one's own

function listenForDrops() {
  const mark = (dropping) => document.body.classList.toggle("dropping", dropping);
  addEventListener("dragover", (event) => (event.preventDefault(), mark(true)));
  addEventListener("dragleave", () => mark(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    openFile(event.dataTransfer.files[0]);
  });
}

function openFile(file) {
  if (!file || $("own").hidden) return;
  $("file").value = ""; // so that the same file can be chosen again
  run("own", async (signal) => {
    const own = await readPixels(file);
    const code = await encode(own, model.image_shape, signal);
    const [pixels] = await decode([code], signal);
    show({ title: file.name, z: code, pixels, own });
    reveal();
  });
}

/** The file stretched to the model's size, on white; grey by the weights of ITU-R BT.601 if the model is grey. */
async function readPixels(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name}: is not an image that this browser can read`);
  });
  const { width, height, channels } = tile;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = (at) => Math.round(0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]);
  const value = (i) => (channels === 1 ? grey(4 * i) : data[4 * Math.floor(i / 3) + (i % 3)]);
  return Uint8Array.from({ length: width * height * channels }, (_, i) => value(i));
}

// ---- tools

function paint(canvas, pixels) {
  const { width, height, channels } = tile;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[i * channels + (channels === 1 ? 0 : c)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const running = new Map();

/** Run a task that replaces the one of this name; what goes wrong is said in one line. */
async function run(name, task) {
  cancel(name);
  const controller = new AbortController();
  running.set(name, controller);
  try {
    await task(controller.signal);
    say(null);
  } catch (error) {
    if (error.name !== "AbortError") say(error);
  } finally {
    if (running.get(name) === controller) running.delete(name);
  }
}

function cancel(name) {
  running.get(name)?.abort();
  running.delete(name);
}

const timers = new Map();

/** Run a task once no other of this name has been asked for during 60 ms. */
function soon(name, task) {
  clearTimeout(timers.get(name));
  timers.set(name, setTimeout(() => run(name, task), 60));
}

function debounced(task, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(task, milliseconds);
  };
}

function say(error) {
  const lost = error instanceof TypeError && /fetch/i.test(error.message);
  $("status").textContent = lost ? "the server does not answer" : (error?.message ?? "");
}

function toText(code) {
  const bytes = String.fromCharCode(...new Uint8Array(code.buffer));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function fromText(text) {
  try {
    const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return new Float32Array(Uint8Array.from(bytes, (c) => c.charCodeAt(0)).buffer);
  } catch {
    throw new Error("the link's z is not one that this page wrote");
  }
}
