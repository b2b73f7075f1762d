// An image of one's own beside its reconstruction: its score, and where in the image the score comes from.
import { paint, paintLegend, paintMap } from "./drawing.js";

const $ = (id) => document.getElementById(id);

/** Show { pixels, stretched, score, strangeness, error } of an own image, or hide all; without a scorer, the first two. */
export function drawComparison(own, shape) {
  const scored = own?.error !== undefined;
  $("yours").hidden = $("caption").hidden = !own;
  $("mapped").hidden = $("scored").hidden = !scored;
  if (!own) return;
  $("caption").textContent = "Reconstruction";
  $("origin").textContent = own.stretched ? `Yours, was ${own.stretched.join(" × ")}` : "Yours";
  paint($("original"), own.pixels, shape);
  if (!scored) return;
  const range = paintMap($("error"), own.error, shape);
  paintLegend($("legend"));
  $("least").textContent = inNats(range[0]);
  $("most").textContent = inNats(range[1]);
  $("score").textContent = Number.isNaN(own.score) ? "not a number" : `${inNats(own.score)} nats`;
  $("stranger").textContent = compared(own.strangeness);
  $("rank-mark").style.width = `${100 * (own.strangeness || 0)}%`;
}

function compared(share) {
  if (Number.isNaN(share)) return "cannot be compared with the validation images";
  if (share === 1) return "stranger than every validation image";
  if (share === 0) return "stranger than no validation image";
  return `stranger than ${(100 * share).toFixed(1)}\u00a0% of the validation images`;
}

/** One decimal; a score far from the data has more digits than anybody reads. */
function inNats(value) {
  const text = Math.abs(value) < 1e5 ? value.toFixed(1) : value.toExponential(1).replace("e+", "e");
  return text.replace("-", "−");
}
