// An image of one's own: read in the browser, then encoded, decoded and scored.
import { decode, encode, has, model, score } from "./model.js";
import { opened, reveal, show } from "./opened.js";
import { state } from "./state.js";
import { run } from "./tasks.js";

const $ = (id) => document.getElementById(id);

export function buildOwn() {
  $("own").hidden = !has("decoder") || !has("encoder");
  $("file").addEventListener("change", () => openFile($("file").files[0]));
  const mark = (dropping) => document.body.classList.toggle("dropping", dropping);
  addEventListener("dragover", (event) => (event.preventDefault(), mark(true)));
  addEventListener("dragleave", () => mark(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    openFile(event.dataTransfer.files[0]);
  });
}

/** The same image under another label. */
export const reopenOwn = (signal) => open(opened.title, opened.own.pixels, signal);

function openFile(file) {
  if (!file || $("own").hidden) return;
  run("drop", async (signal) => {
    await open(file.name, await readPixels(file), signal);
    reveal();
  });
  $("file").value = ""; // so that the same file can be chosen again
}

async function open(title, own, signal) {
  const z = await encode(own, state.label, signal);
  const [pixels] = await decode([z], state.label, signal);
  const scored = has("scorer") && model.quantiles ? await score(own, state.label, signal) : {};
  show({ title, z, pixels, own: { pixels: own, ...scored } });
}

/** The file stretched to the model's size, on white; grey by the weights of ITU-R BT.601 if the model is grey. */
async function readPixels(file) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name}: is not an image that this browser can read`);
  });
  const [height, width, channels] = model.imageShape;
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
