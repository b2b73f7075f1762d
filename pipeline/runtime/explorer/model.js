// The model as functions of plain arrays, whichever backend runs its graphs. Every run may be cancelled by a signal.
import { describe, run } from "./backend.js";

const GREY_LEVEL = Math.fround(1 / 255);

/**
 * imageShape [H, W, C], latentDim, likelihood, drawsStandardNormal, latentKl, latentMean, latentDeviation and labels (or
 * null), graphs, quantiles of the scores.
 */
export let model;

export async function openModel() {
  model = await describe();
}

export const has = (graph) => model.graphs.includes(graph);

/** Images first .. first + count - 1 of each seed, and their latents: uint8 [H * W * C] and float32 [latentDim]. */
export async function sample(seeds, first, count, temperature, label, signal) {
  const rows = seeds.flatMap((seed) => Array.from({ length: count }, (_, i) => [seed, first + i]));
  const n = rows.length;
  const { images, z } = await run("sampler", {
    seed: integers(rows.map(([seed]) => seed)),
    index: integers(rows.map(([, index]) => index)),
    temperature: { type: "float32", dims: [n], data: new Float32Array(n).fill(temperature) },
    ...labels(n, label),
  }, signal);
  return { images: split(images, n), z: split(z, n) };
}

/** The images of latents. */
export async function decode(codes, label, signal) {
  const n = codes.length;
  const data = Float32Array.from(codes.flatMap((code) => [...code]));
  const { x } = await run("decoder", { z: { type: "float32", dims: [n, model.latentDim], data }, ...labels(n, label) }, signal);
  return split(x, n).map(toPixels);
}

/** The mean of q(z|x) of one image, uint8 [H * W * C]. */
export async function encode(pixels, label, signal) {
  return (await run("encoder", { images: oneImage(pixels), ...labels(1, label) }, signal)).mu;
}

/** One image's score and error map [H * W] in nats, and the share of the validation images that score lower. */
export async function score(pixels, label, signal) {
  const { score: scores, error } = await run("scorer", { images: oneImage(pixels), ...labels(1, label) }, signal);
  return { score: scores[0], error, strangeness: strangeness(scores[0], model.quantiles) };
}

/** Linear between the stored quantiles, as `Sampler.strangeness` is; of NaN it is NaN there too. */
function strangeness(value, { levels, scores }) {
  if (Number.isNaN(value)) return NaN;
  const above = scores.findIndex((score) => score > value);
  if (above === -1) return 1;
  if (above === 0) return 0;
  const share = (value - scores[above - 1]) / (scores[above] - scores[above - 1]);
  return levels[above - 1] + share * (levels[above] - levels[above - 1]);
}

/** Means in [0, 1], channels first -> the nearest of 256 levels, channels last. */
function toPixels(x) {
  const [height, width, channels] = model.imageShape;
  const pixels = new Uint8ClampedArray(x.length); // rounds half to even, as numpy does
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < channels; c++) pixels[i * channels + c] = Math.fround(x[c * height * width + i] / GREY_LEVEL);
  }
  return new Uint8Array(pixels.buffer);
}

const oneImage = (data) => ({ type: "uint8", dims: [1, ...model.imageShape], data });

const integers = (values) => ({ type: "int64", dims: [values.length], data: BigInt64Array.from(values, BigInt) });

const labels = (n, label) => (model.labels ? { label: integers(Array(n).fill(label)) } : {});

function split(array, n) {
  const size = array.length / n;
  return Array.from({ length: n }, (_, i) => array.slice(i * size, (i + 1) * size));
}
