// A slider for each latent dimension, those that carry the most nats first.
import { has, model } from "./model.js";

const INACTIVE = 0.01; // nats; the decoder hardly hears of such a dimension
const MOST_AT_FIRST = 16;
const REACH = 4; // standard deviations of what z is drawn from; further where a code lies further
const STEP = 0.05; // of these

const $ = (id) => document.getElementById(id);
let rows; // { dimension, input, output, element }, in the order of the page
let few; // how many are shown before all are asked for

/** `move` is called with a dimension and its new value. */
export function buildSliders(move) {
  $("latent").hidden = !has("decoder");
  const kl = model.latentKl;
  const order = Array.from({ length: model.latentDim }, (_, i) => i);
  if (kl) order.sort((a, b) => kl[b] - kl[a]);
  rows = order.map((dimension) => buildRow(dimension, kl, move));
  $("sliders").replaceChildren(...rows.map(({ element }) => element));
  $("latent").classList.toggle("ranked", kl !== null);
  const active = kl ? kl.filter((nats) => nats >= INACTIVE).length : model.latentDim;
  few = Math.min(MOST_AT_FIRST, Math.max(1, active));
  if (kl && active < model.latentDim) markInactive(active);
  $("all").hidden = few === model.latentDim;
  $("all").addEventListener("click", () => fold($("all").getAttribute("aria-expanded") === "true"));
  fold(true);
}

function buildRow(dimension, kl, move) {
  const element = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "range" });
  const output = document.createElement("output");
  input.dataset.dimension = dimension;
  input.ariaLabel = kl ? `z${dimension}, KL ${kl[dimension].toFixed(2)} nats` : `z${dimension}`;
  input.addEventListener("input", () => move(dimension, input.valueAsNumber));
  element.append(`z${dimension}`, input, output);
  if (kl) element.append(buildKl(kl[dimension], Math.max(...kl)));
  const row = { dimension, input, output, element };
  setReach(row, REACH);
  return row;
}

function setReach({ dimension, input }, deviations) {
  const { mean, deviation } = scale(dimension);
  const [min, max] = [mean - deviations * deviation, mean + deviations * deviation];
  Object.assign(input, { min, max, step: STEP * deviation });
}

/** Of a dimension of z, where the model says it: by default those of the standard normal. */
function scale(dimension) {
  return { mean: model.latentMean?.[dimension] ?? 0, deviation: model.latentDeviation?.[dimension] ?? 1 };
}

/** A bar as long as its share of the largest, and the number. */
function buildKl(nats, largest) {
  const element = Object.assign(document.createElement("span"), { className: "kl" });
  const bar = document.createElement("i");
  const inactive = nats < INACTIVE;
  bar.style.width = inactive ? 0 : `${(50 * nats) / largest}%`;
  element.append(bar, inactive ? `<${INACTIVE}` : nats.toFixed(2));
  return element;
}

function markInactive(active) {
  const note = Object.assign(document.createElement("p"), { id: "inactive" });
  note.textContent = `Below ${INACTIVE} nats: these hardly change the picture.`;
  rows[active].element.before(note);
}

function fold(folded) {
  $("all").setAttribute("aria-expanded", !folded);
  $("all").textContent = folded ? `All ${rows.length}` : `Top ${few}`;
  for (const [i, { element }] of rows.entries()) element.hidden = folded && i >= few;
  const note = $("inactive");
  if (note) note.hidden = folded;
}

/** Let every slider reach the outermost value of a code. */
export function stretchSliders(z) {
  const far = ({ dimension }) => Math.abs(z[dimension] - scale(dimension).mean) / scale(dimension).deviation;
  const reach = Math.ceil(Math.max(REACH, ...rows.map(far)));
  for (const row of rows) setReach(row, reach);
}

export function drawSliders(z) {
  for (const { dimension, input, output } of rows) {
    input.value = z[dimension];
    output.textContent = z[dimension].toFixed(2).replace(/^-(?=0\.00$)/, "").replace("-", "−");
  }
}
