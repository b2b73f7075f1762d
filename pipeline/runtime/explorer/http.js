// The graphs behind `vae serve`, over the KServe v2 protocol with binary tensors.
import { askForToken, forgetToken, savedToken } from "./token.js";

const NAMES = { int64: "INT64", float32: "FP32", uint8: "UINT8" };
let asked; // whether the server wants a token: without one, a refusal would stand in the console
let mostRows; // of one request
const ARRAYS = { INT64: BigInt64Array, FP32: Float32Array, UINT8: Uint8Array };

/** What the model is. */
export async function describe() {
  const metadata = await (await request("metadata")).json();
  mostRows = metadata.max_images;
  return {
    imageShape: metadata.image_shape,
    latentDim: metadata.latent_dim,
    likelihood: metadata.likelihood,
    drawsStandardNormal: metadata.prior === "standard" && !metadata.aggregate_components,
    latentKl: metadata.latent_kl ?? null,
    latentMean: metadata.latent_mean ?? null,
    latentDeviation: metadata.latent_deviation ?? null,
    labels: metadata.labels ?? null,
    graphs: metadata.graphs,
    quantiles: metadata.score?.quantiles,
  };
}

/**
 * One run of a graph: {name: {type, dims, data}} in, {name: typed array} out. Rows stand alone, so those that are more
 * than the server takes in one request go in several.
 */
export async function run(graph, inputs, signal) {
  const [{ dims: [n] }] = Object.values(inputs);
  const starts = Array.from({ length: Math.ceil(n / mostRows) }, (_, i) => i * mostRows);
  return join(await Promise.all(starts.map((at) => infer(graph, rows(inputs, at, at + mostRows), signal))));
}

function rows(inputs, start, stop) {
  return mapValues(inputs, ({ type, dims: [n, ...shape], data }) => {
    const size = data.length / n;
    const part = data.slice(start * size, stop * size);
    return { type, dims: [part.length / size, ...shape], data: part };
  });
}

const join = (parts) => mapValues(parts[0], (_, name) => concatenate(parts.map((outputs) => outputs[name])));

function concatenate(arrays) {
  const whole = new arrays[0].constructor(arrays.reduce((length, array) => length + array.length, 0));
  let at = 0;
  for (const array of arrays) {
    whole.set(array, at);
    at += array.length;
  }
  return whole;
}

function mapValues(object, change) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value, name)]));
}

async function infer(graph, inputs, signal) {
  const tensors = Object.entries(inputs).map(([name, { type, dims, data }]) => (
    { name, datatype: NAMES[type], shape: dims, parameters: { binary_data_size: data.byteLength } }
  ));
  const header = new TextEncoder().encode(JSON.stringify({
    inputs: tensors,
    parameters: { binary_data_output: true },
  }));
  const response = await request(`v2/models/${graph}/infer`, {
    method: "POST",
    headers: { "content-type": "application/octet-stream", "Inference-Header-Content-Length": header.length },
    body: new Blob([header, ...Object.values(inputs).map(({ data }) => data)]),
    signal,
  });
  return readOutputs(await response.arrayBuffer(), Number(response.headers.get("Inference-Header-Content-Length")));
}

function readOutputs(body, headerLength) {
  const { outputs } = JSON.parse(new TextDecoder().decode(body.slice(0, headerLength)));
  let at = headerLength;
  return Object.fromEntries(outputs.map(({ name, datatype, parameters }) => {
    const start = at;
    at += parameters.binary_data_size;
    return [name, new ARRAYS[datatype](body.slice(start, at))];
  }));
}

/** A request with the token, if one is known; a server that wants another is answered by asking for it. */
async function request(path, options = {}) {
  asked ??= asksForToken();
  if (!savedToken() && (await asked)) await askForToken("");
  const token = savedToken();
  const headers = { ...options.headers, ...(token ? { authorization: `Bearer ${token}` } : {}) };
  const response = await fetch(path, { ...options, headers }).catch((error) => {
    throw error.name === "AbortError" ? error : new Error("the server does not answer");
  });
  if (response.ok) return response;
  if (response.status === 401) {
    if (token === savedToken()) forgetToken(); // unless it was replaced meanwhile
    await askForToken(token ? "the server does not know this token" : "");
    return request(path, options);
  }
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error ?? `the server answered ${response.status}`);
}

/** What the server says without a token; if it says nothing, the request itself will tell. */
async function asksForToken() {
  const answer = await fetch("health").then((response) => response.json()).catch(() => ({}));
  return answer.token === true;
}
