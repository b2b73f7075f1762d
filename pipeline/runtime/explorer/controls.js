// What the controls ask for, and what has to be drawn anew for it.
import { model } from "./model.js";
import { copyLink, download, forgetIndex, opened, reopen, reset } from "./opened.js";
import { reopenOwn } from "./own.js";
import { drawSamples, drawWalk } from "./samples.js";
import { LARGEST_FIRST, LARGEST_SEED, SAMPLES, state } from "./state.js";
import { say, soon } from "./tasks.js";

const $ = (id) => document.getElementById(id);

export function buildControls() {
  buildLabels();
  for (const name of ["seed", "from", "to"]) $(name).addEventListener("change", () => setSeed(name, $(name).value));
  $("reseed").addEventListener("click", () => setSeed("seed", crypto.getRandomValues(new Uint32Array(1))[0]));
  $("temperature").addEventListener("input", () => change({ temperature: $("temperature").valueAsNumber }));
  $("label").addEventListener("change", () => change({ label: Number($("label").value) }));
  $("previous").addEventListener("click", () => change({ first: Math.max(0, state.first - SAMPLES) }));
  $("next").addEventListener("click", () => change({ first: Math.min(LARGEST_FIRST, state.first + SAMPLES) }));
  $("reset").addEventListener("click", reset);
  $("download").addEventListener("click", download);
  $("copy").addEventListener("click", copyLink);
}

function buildLabels() {
  $("labelled").hidden = !model.labels;
  const options = (model.labels ?? []).map((name, value) => Object.assign(document.createElement("option"), { value, text: name }));
  $("label").replaceChildren(...options);
}

function setSeed(name, text) {
  const seed = Number(text);
  if (text === "" || !Number.isSafeInteger(seed) || seed < 0) {
    say(new Error(`the seed is '${text}'; expected a whole number from 0 to ${LARGEST_SEED}`), "input");
    return;
  }
  change(name === "seed" ? { seed, first: 0 } : { [name]: seed });
}

function change(changed) {
  Object.assign(state, changed);
  say(null, "input");
  const ends = "from" in changed || "to" in changed;
  if (!ends) {
    forgetIndex();
    soon("grid", drawSamples);
  }
  if (ends || "temperature" in changed || "label" in changed) soon("walk", drawWalk);
  if ("label" in changed && state.z) soon("picture", opened.own ? reopenOwn : reopen);
}
