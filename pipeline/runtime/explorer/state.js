// What is seen is a function of `state`; the address bar holds it, so that a link shows the same.
import { debounced } from "./tasks.js";

export const SAMPLES = 24;
export const LARGEST_SEED = Number.MAX_SAFE_INTEGER; // up to here a number field is exact
export const LARGEST_FIRST = 2 ** 48 - SAMPLES; // a seed has 2^48 images

/** `open` is the sample that is opened, unless `z` holds a code as text. */
export const state = { seed: 22, first: 0, temperature: 1, label: 0, from: 59, to: 22, open: 0, z: null };

/** Take over what the address says. What it does not say stays, and so does what it says wrongly: an error names all of that. */
export function readLink({ largestTemperature, labels }) {
  const link = new URLSearchParams(location.hash.slice(1));
  const largest = {
    seed: LARGEST_SEED, from: LARGEST_SEED, to: LARGEST_SEED, first: LARGEST_FIRST, open: SAMPLES - 1,
    label: (labels ?? [0]).length - 1, temperature: largestTemperature,
  };
  const wrong = [];
  for (const [name, most] of Object.entries(largest)) {
    const text = link.get(name);
    if (text === null) continue;
    const number = text.trim() ? Number(text) : NaN;
    if (number >= 0 && number <= most && (Number.isInteger(number) || name === "temperature")) state[name] = number;
    else wrong.push(`${name} is '${text.slice(0, 20)}'; expected 0 to ${most}`);
  }
  state.z = link.get("z");
  const unknown = [...new Set(link.keys())].filter((name) => !Object.hasOwn(state, name)).map((name) => name.slice(0, 20));
  const verb = unknown.length > 1 ? "are" : "is";
  if (unknown.length) wrong.push(`${unknown.join(" and ")} ${verb} not known; expected ${Object.keys(state).join(", ")}`);
  return wrong.length ? new Error(`the link's ${wrong.join(", its ")}`) : null;
}

/** Write the state into the address, without a step of the browser's history. */
export const remember = debounced((labels) => {
  const { z, open, label, ...numbers } = state;
  const link = new URLSearchParams({ ...numbers, ...(labels ? { label } : {}), ...(z ? { z } : { open }) });
  history.replaceState(null, "", `#${link}`);
}, 100);

/** A code, float32 [latentDim], as text for a link. */
export function toText(code) {
  const bytes = String.fromCharCode(...new Uint8Array(code.buffer));
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export function fromText(text) {
  try {
    const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    return new Float32Array(Uint8Array.from(bytes, (c) => c.charCodeAt(0)).buffer);
  } catch {
    throw new Error("the link's z is not one that this page wrote");
  }
}
