// The opened image: its picture, its code on the sliders, and what can be taken away.
import { drawComparison } from "./comparison.js";
import { paint } from "./drawing.js";
import { decode, model } from "./model.js";
import { drawSliders, stretchSliders } from "./sliders.js";
import { fromText, remember, state, toText } from "./state.js";
import { cancel, isRunning, run, say } from "./tasks.js";
import { press } from "./tiles.js";

const $ = (id) => document.getElementById(id);

/** { title, z, pixels, index, own }: the code that Reset returns to; `index` of a sample, `own` of an uploaded image. */
export let opened;
let z; // float32 [latentDim] of the picture that is shown

/** Open a code whose pixels are known. */
export function show(what) {
  cancel("picture");
  opened = what;
  z = what.z.slice();
  state.z = what.index === undefined ? toText(z) : null;
  if (what.index !== undefined) state.open = what.index;
  press(what.index === undefined ? null : $("grid").children[what.index]);
  $("opened-title").textContent = what.title;
  $("reset").disabled = true;
  drawComparison(what.own, model.imageShape);
  stretchSliders(z);
  drawSliders(z);
  paint($("picture"), what.pixels, model.imageShape);
  remember(model.labels);
}

/** On a phone the opened image is below what opened it. */
export function reveal() {
  if (matchMedia("(max-width: 52rem)").matches) $("opened").scrollIntoView();
}

/** Open the code that a link holds. */
export async function openLinked(text, signal) {
  const code = fromText(text);
  if (code.length !== model.latentDim || !code.every(Number.isFinite)) throw new Error("the link is of another model");
  await openCode("A linked image", code, signal);
}

/** The opened code under another label. */
export const reopen = (signal) => openCode(opened.title, z, signal);

async function openCode(title, code, signal) {
  const [pixels] = await decode([code], state.label, signal);
  show({ title, z: code, pixels });
}

export function reset() {
  show(opened);
}

/** The grid shows other samples now: Reset must not lead to one that is gone. */
export function forgetIndex() {
  delete opened?.index;
}

export function move(dimension, value) {
  z[dimension] = value;
  say(null, "input");
  state.z = toText(z);
  $("reset").disabled = false;
  if (opened.own) $("caption").textContent = "Moved from its code";
  press(null);
  drawSliders(z);
  decodeLatest();
  remember(model.labels);
}

// One request at a time, and then the newest code: a drag shows every picture that there is time for.
let wanted = false;
async function decodeLatest() {
  wanted = true;
  if (isRunning("picture")) return;
  while (wanted) {
    wanted = false;
    await run("picture", async (signal) => {
      const [pixels] = await decode([z], state.label, signal);
      paint($("picture"), pixels, model.imageShape);
    });
  }
}

export function download() {
  $("picture").toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob) });
    link.download = `${$("opened-title").textContent.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
}

export async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    $("copy").textContent = "Copied";
    setTimeout(() => ($("copy").textContent = "Copy link"), 1500);
  } catch {
    say(new Error("the browser does not let this page copy; the link is in the address bar"), "input");
  }
}
