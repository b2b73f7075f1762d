// What is seen is a function of `state`; the address bar holds it, so that a link shows the same.
import { debounced } from "./tasks.js";

export const SAMPLES = 24;

/** `open` is the sample that is opened, unless `z` holds a code as text. */
export const state = { seed: 0, first: 0, temperature: 1, label: 0, from: 3, to: 8, open: 0, z: null };

/** Take over what the address says; what it does not say, or says wrongly, stays. */
export function readLink({ largestTemperature, labels }) {
  const link = new URLSearchParams(location.hash.slice(1));
  for (const name of ["seed", "first", "from", "to", "open", "label"]) {
    const number = Number(link.get(name) ?? NaN);
    if (Number.isSafeInteger(number) && number >= 0) state[name] = number;
  }
  const temperature = Number(link.get("temperature") ?? NaN);
  if (temperature >= 0 && temperature <= largestTemperature) state.temperature = temperature;
  state.open %= SAMPLES;
  state.label = Math.min(state.label, (labels ?? [0]).length - 1);
  state.z = link.get("z");
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
