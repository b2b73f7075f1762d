// An image of one's own: read in the browser, then encoded, decoded and scored.
import { decode, encode, has, model, score } from "./model.js";
import { opened, reveal, show } from "./opened.js";
import { state } from "./state.js";
import { run, say } from "./tasks.js";

const MOST_PIXELS = 2 ** 24; // what `vae serve` allows too; a small file may hold far more

const $ = (id) => document.getElementById(id);

export function buildOwn() {
  $("own").hidden = !has("decoder") || !has("encoder");
  $("lacking").hidden = !$("own").hidden;
  $("file").addEventListener("change", () => openFiles($("file").files));
  const mark = (dropping) => document.body.classList.toggle("dropping", dropping);
  addEventListener("dragover", (event) => (event.preventDefault(), mark(true)));
  addEventListener("dragleave", () => mark(false));
  addEventListener("drop", (event) => {
    event.preventDefault();
    mark(false);
    openFiles(event.dataTransfer.files);
  });
}

/** The same image under another label. */
export const reopenOwn = (signal) => open(opened.title, opened.own, signal);

function openFiles(files) {
  if ($("own").hidden) return;
  if (files.length !== 1) {
    say(new Error(`${files.length || "no"} files; expected one image`), "drop");
    return;
  }
  const [file] = files;
  run("drop", async (signal) => {
    await open(file.name, await readImage(file), signal);
    reveal();
  });
  $("file").value = ""; // so that the same file can be chosen again
}

/** Open { pixels, stretched }: what the model sees, and the size that it had before. */
async function open(title, own, signal) {
  const z = await encode(own.pixels, state.label, signal);
  const [pixels] = await decode([z], state.label, signal);
  const scored = has("scorer") && model.quantiles ? await score(own.pixels, state.label, signal) : {};
  show({ title, z, pixels, own: { ...own, ...scored } });
}

/** The file stretched to the model's size, on white; grey by the weights of ITU-R BT.601 if the model is grey. */
async function readImage(file) {
  const bitmap = await readBitmap(file);
  const [height, width, channels] = model.imageShape;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0, width, height);
  const { data } = context.getImageData(0, 0, width, height);
  const grey = (at) => Math.round(0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]);
  const value = (i) => (channels === 1 ? grey(4 * i) : data[4 * Math.floor(i / 3) + (i % 3)]);
  const pixels = Uint8Array.from({ length: width * height * channels }, (_, i) => value(i));
  const same = bitmap.width === width && bitmap.height === height;
  return { pixels, stretched: same ? null : [bitmap.width, bitmap.height] };
}

/** A file is decoded only if its header, which an element reads alone, does not say that it is too large to. */
async function readBitmap(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => Object.assign(image, { onload: resolve, onerror: reject }));
    if (image.naturalWidth * image.naturalHeight <= MOST_PIXELS) return await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name}: is not an image that this browser can read`);
  } finally {
    URL.revokeObjectURL(image.src);
  }
  throw new Error(`${file.name}: has ${image.naturalWidth} × ${image.naturalHeight} pixels; expected ${MOST_PIXELS} at most`);
}
