// The page's start: the model is opened, the page built for it, and what the link says is shown.
import { buildControls } from "./controls.js";
import { model, openModel } from "./model.js";
import { move, openLinked } from "./opened.js";
import { buildOwn } from "./own.js";
import { buildSamples, drawSamples, drawWalk } from "./samples.js";
import { buildSliders } from "./sliders.js";
import { readLink, state } from "./state.js";
import { say } from "./tasks.js";

const $ = (id) => document.getElementById(id);

$("unstarted").hidden = true;
start();

async function start() {
  try {
    await openModel();
    build();
    await restore();
    $("model").textContent = facts().join(" · ");
    document.querySelector("main").hidden = false;
  } catch (error) {
    $("model").textContent = "";
    $("stopped").textContent = error.message;
    $("stopped").hidden = false;
  }
}

function build() {
  buildSamples();
  buildSliders(move);
  buildControls();
  buildOwn();
  addEventListener("hashchange", () => restore().catch((error) => say(error, "input")));
}

async function restore() {
  const wrong = readLink({ largestTemperature: Number($("temperature").max), labels: model.labels });
  if (wrong) say(wrong, "input");
  await Promise.all([drawSamples(), drawWalk()]);
  if (!state.z) return;
  try {
    await openLinked(state.z);
  } catch (error) {
    state.z = null;
    await drawSamples();
    say(wrong ? new Error(`${wrong.message}, and ${error.message}`) : error, "input");
  }
}

function facts() {
  const [height, width] = model.imageShape;
  return [`${width} × ${height} pixels`, `${model.latentDim} latent dimensions`, `${model.likelihood} likelihood`];
}
