// The grid of samples, and the walk between two seeds.
import { decode, has, model, sample } from "./model.js";
import { reveal, show } from "./opened.js";
import { remember, SAMPLES, state } from "./state.js";
import { buildTiles, fillTiles } from "./tiles.js";

const STEPS = 8;

const $ = (id) => document.getElementById(id);

export function buildSamples() {
  buildTiles($("grid"), SAMPLES);
  buildTiles($("walk"), STEPS);
  $("walking").hidden = !has("decoder");
}

export async function drawSamples(signal) {
  const { seed, first, temperature, label } = state;
  const { images, z: codes } = await sample([seed], first, SAMPLES, temperature, label, signal);
  $("seed").value = seed;
  $("temperature").value = temperature;
  $("temperature-value").textContent = temperature.toFixed(2);
  $("label").value = label;
  $("range").textContent = `${first} to ${first + SAMPLES - 1}`;
  $("previous").disabled = !first;
  const name = (i) => `Seed ${seed}, image ${first + i}`;
  const open = (i) => show({ title: name(i), z: codes[i], pixels: images[i], index: i });
  fillTiles($("grid"), images, model.imageShape, name, (i) => (open(i), reveal()));
  if (!state.z) open(state.open);
  remember(model.labels);
}

export async function drawWalk(signal) {
  if (!has("decoder")) return;
  const { from, to, temperature, label } = state;
  const ends = await sample([from, to], 0, 1, temperature, label, signal);
  const way = model.drawsStandardNormal ? spherical : straight;
  const codes = way(...ends.z, STEPS);
  const images = await decode(codes, label, signal);
  $("from").value = from;
  $("to").value = to;
  const name = (i) => `Seed ${from} to ${to}, step ${i + 1} of ${STEPS}`;
  const open = (i) => (show({ title: name(i), z: codes[i], pixels: images[i] }), reveal());
  fillTiles($("walk"), images, model.imageShape, name, open);
  remember(model.labels);
}

/** Points along the great circle between two draws of the standard normal; a line would pass too near the centre. */
function spherical(start, end, steps) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const lengths = Math.sqrt(dot(start, start) * dot(end, end));
  const angle = lengths ? Math.acos(Math.min(1, Math.max(-1, dot(start, end) / lengths))) : 0;
  if (Math.sin(angle) < 1e-4) return straight(start, end, steps);
  return points(start, end, steps, (t) => Math.sin(t * angle) / Math.sin(angle));
}

/** Points along the line, for any other density: its draws lie around centres of their own. */
const straight = (start, end, steps) => points(start, end, steps, (t) => t);

function points(start, end, steps, share) {
  return Array.from({ length: steps }, (_, step) => {
    const t = step / (steps - 1);
    return start.map((value, i) => share(1 - t) * value + share(t) * end[i]);
  });
}
