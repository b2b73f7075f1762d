// Runs graphs one after the other beside the page, which stays responsive. Every file is held to the manifest's sha256.
const RUNTIME = "./ort.wasm.bundle.min.mjs";
const MISSING = "onnxruntime-web is not in this folder: of its npm package's dist/, put ort.wasm.bundle.min.mjs and "
  + "ort-wasm-simd-threaded.wasm beside index.html";

const sessions = new Map(); // graph -> [onnxruntime, its session], opened when first asked for
let files; // of the manifest
let last = Promise.resolve(); // a session runs one request at a time

onmessage = ({ data }) => {
  if (data.files) files = data.files;
  else last = last.then(() => answer(data));
};

async function answer({ id, graph, inputs }) {
  try {
    postMessage({ id, outputs: await run(graph, inputs) });
  } catch (error) {
    postMessage({ id, error: error.message ?? String(error) });
  }
}

async function run(graph, inputs) {
  if (!sessions.has(graph)) sessions.set(graph, await open(`${graph}.onnx`));
  const [ort, session] = sessions.get(graph);
  const feeds = mapValues(inputs, ({ type, data, dims }) => new ort.Tensor(type, data, dims));
  return mapValues(await session.run(feeds), ({ data }) => data);
}

async function open(name) {
  const [ort, content] = await Promise.all([runtime(), verified(name)]);
  try {
    return [ort, await ort.InferenceSession.create(content, { executionProviders: ["wasm"] })];
  } catch (error) {
    throw new Error(/wasm/.test(error.message) ? MISSING : `${name}: ${error.message}`);
  }
}

async function runtime() {
  const ort = await import(RUNTIME).catch(() => {
    throw new Error(MISSING);
  });
  // More threads would need headers that isolate the page from other origins, which a plain web server does not send.
  ort.env.wasm.numThreads = 1;
  return ort;
}

async function verified(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: the web server answered ${response.status}; manifest.json lists it`);
  const content = await response.arrayBuffer();
  if (crypto.subtle) { // absent where the page came over plain HTTP from another machine
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    const sha256 = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (sha256 !== files[name].sha256) throw new Error(`${name}: has another sha256 than manifest.json lists`);
  }
  return new Uint8Array(content);
}

function mapValues(object, change) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));
}
