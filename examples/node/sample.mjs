// Draw images from sampler.onnx with onnxruntime-node alone: a seed in, a PNG grid out.
// node sample.mjs MODEL OUT.png [--seed 7] [--count 16] [--first 0] [--temperature 1]

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { crc32, deflateSync } from "node:zlib";
import { InferenceSession, Tensor } from "onnxruntime-node";

const SEED_LIMIT = 2n ** 63n;
const INDEX_LIMIT = 2n ** 48n;
const COLOUR_TYPE = { 1: 0, 3: 2 }; // of a PNG, by channels

async function main() {
  const { model, out, seed, first, count, temperature } = parse(process.argv.slice(2));
  const images = await draw(await open(model), seed, first, count, temperature);
  writeFileSync(out, png(grid(images)));
  console.log(`${out}: ${count} images of seed ${seed}`);
}

async function open(model) {
  const session = await InferenceSession.create(model).catch((error) => {
    throw new Error(`${model}: is missing or is no ONNX file (${error.message.split("\n")[0]})`);
  });
  if (session.inputNames.join() === "seed,index,temperature") return session;
  throw new Error(`${model}: its inputs are ${session.inputNames}; expected a sampler.onnx of a model without classes`);
}

/** Images number first to first + count - 1 of a seed: a uint8 tensor [count, H, W, C]. Seeds are BigInts. */
async function draw(session, seed, first, count, temperature) {
  const indices = BigInt64Array.from({ length: count }, (_, i) => first + BigInt(i));
  const { images } = await session.run({
    seed: new Tensor("int64", new BigInt64Array(count).fill(seed), [count]),
    index: new Tensor("int64", indices, [count]),
    temperature: new Tensor("float32", new Float32Array(count).fill(temperature), [count]),
  });
  return images;
}

/** The images in rows, as many to a row as there are rows; what is left of the last row stays black. */
function grid({ data, dims: [count, height, width, channels] }) {
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  const line = width * channels;
  const pixels = new Uint8Array(rows * height * columns * line);
  for (let i = 0; i < count; i++) {
    for (let y = 0; y < height; y++) {
      const from = (i * height + y) * line;
      const at = (Math.floor(i / columns) * height + y) * columns + (i % columns);
      pixels.set(data.subarray(from, from + line), at * line);
    }
  }
  return { pixels, height: rows * height, width: columns * width, channels };
}

/** Pixels as a PNG with 8 bits a channel. */
function png({ pixels, height, width, channels }) {
  const line = width * channels;
  const filtered = Buffer.alloc(height * (line + 1)); // before each line stands its filter: 0, none
  for (let y = 0; y < height; y++) filtered.set(pixels.subarray(y * line, (y + 1) * line), y * (line + 1) + 1);
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, COLOUR_TYPE[channels]], 8);
  const signature = Buffer.from("\x89PNG\r\n\x1a\n", "latin1");
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(filtered)), chunk("IEND", "")]);
}

function chunk(type, content) {
  const body = Buffer.concat([Buffer.from(type), Buffer.from(content)]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(body.length - 4, 0);
  framed.set(body, 4);
  framed.writeUInt32BE(crc32(body), body.length + 4);
  return framed;
}

function parse(args) {
  const options = {
    seed: { type: "string", default: "0" },
    first: { type: "string", default: "0" },
    count: { type: "string", default: "16" },
    temperature: { type: "string", default: "1" },
  };
  const { values, positionals } = parseArgs({ args, options, allowPositionals: true });
  const [model, out] = positionals;
  if (positionals.length !== 2) throw new Error("expected MODEL and OUT.png");
  const count = whole("count", values.count, 1n, 100000n);
  const first = whole("first", values.first, 0n, INDEX_LIMIT - count);
  const temperature = values.temperature.trim() === "" ? NaN : Number(values.temperature);
  if (!(temperature >= 0 && temperature <= 1000)) {
    throw new Error(`--temperature is ${values.temperature}; expected 0 to 1000`);
  }
  return { model, out, seed: whole("seed", values.seed, 0n, SEED_LIMIT - 1n), first, count: Number(count), temperature };
}

function whole(name, text, low, high) {
  const number = /^\d+$/.test(text) ? BigInt(text) : -1n;
  if (number < low || number > high) {
    throw new Error(`--${name} is ${text}; expected a whole number from ${low} to ${high}`);
  }
  return number;
}

main().catch((error) => {
  console.error(`error: ${error.message}`);
  process.exitCode = 2;
});
