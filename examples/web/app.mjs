// Runs sampler.onnx in the browser: a seed in, a grid of canvases out. Nothing is fetched from another host.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";

const SEED_LIMIT = 2n ** 63n;
const MOST_IMAGES = 256;
const HIGHEST_TEMPERATURE = 3;

const form = document.getElementById("form");
const grid = document.getElementById("grid");
const status = document.getElementById("status");
const button = form.querySelector("button");

// More threads would need a page that is isolated from other origins, hence headers that a static server does not send.
ort.env.wasm.numThreads = 1;
const session = open("sampler.onnx");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  show();
});
show();

async function show() {
  grid.ariaBusy = "true";
  button.disabled = true; // a session runs one request at a time
  const { seed, count, temperature } = form.elements;
  try {
    const images = await draw(BigInt(seed.value), count.valueAsNumber, temperature.valueAsNumber);
    grid.replaceChildren(...canvases(images));
    status.textContent = `${images.dims[0]} images of seed ${seed.value}`;
  } catch (error) {
    status.textContent = `No images: ${error.message ?? error}`;
  }
  grid.ariaBusy = "false";
  button.disabled = false;
}

async function open(file) {
  const opened = await ort.InferenceSession.create(file).catch((error) => {
    throw new Error(`${file} is missing or is no ONNX file (${String(error.message ?? error).split("\n")[0]})`);
  });
  if (opened.inputNames.join() === "seed,index,temperature") return opened;
  throw new Error(`the inputs of ${file} are ${opened.inputNames}; expected a sampler.onnx of a model without classes`);
}

/** Images 0 to count - 1 of a seed: a uint8 tensor [count, H, W, C]. int64 is a BigInt in JavaScript. */
async function draw(seed, count, temperature) {
  check(seed, count, temperature);
  const { images } = await (await session).run({
    seed: new ort.Tensor("int64", new BigInt64Array(count).fill(seed), [count]),
    index: new ort.Tensor("int64", BigInt64Array.from({ length: count }, (_, i) => BigInt(i)), [count]),
    temperature: new ort.Tensor("float32", new Float32Array(count).fill(temperature), [count]),
  });
  return images;
}

/** The graph computes with any number; the limits of the form's fields hold for people alone. */
function check(seed, count, temperature) {
  if (seed < 0n || seed >= SEED_LIMIT) {
    throw new Error(`seed is ${seed}; expected a whole number from 0 to ${SEED_LIMIT - 1n}`);
  }
  if (!Number.isInteger(count) || count < 1 || count > MOST_IMAGES) {
    throw new Error(`count is ${count}; expected a whole number from 1 to ${MOST_IMAGES}`);
  }
  if (!(temperature >= 0 && temperature <= HIGHEST_TEMPERATURE)) {
    throw new Error(`temperature is ${temperature}; expected a number from 0 to ${HIGHEST_TEMPERATURE}`);
  }
}

function canvases({ data, dims: [count, height, width, channels] }) {
  const size = height * width * channels;
  return Array.from({ length: count }, (_, i) => canvas(data.subarray(i * size, (i + 1) * size), height, width, channels));
}

function canvas(pixels, height, width, channels) {
  const element = Object.assign(document.createElement("canvas"), { height, width });
  const image = new ImageData(width, height); // RGBA
  for (let at = 0; at < height * width; at++) {
    for (let c = 0; c < 3; c++) image.data[4 * at + c] = pixels[at * channels + (channels === 1 ? 0 : c)];
    image.data[4 * at + 3] = 255;
  }
  element.getContext("2d").putImageData(image, 0, 0);
  return element;
}
