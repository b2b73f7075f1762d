// The graphs in the browser itself: a worker runs the .onnx files beside this page with onnxruntime-web.
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // number of a run -> what its answer settles
let count = 0;
let broken; // the error of a worker that does not run

worker.onmessage = ({ data: { id, outputs, error } }) => {
  const { resolve, reject } = waiting.get(id) ?? {};
  waiting.delete(id);
  if (error) reject?.(new Error(error));
  else resolve?.(outputs);
};

worker.onerror = (event) => {
  event.preventDefault(); // the page says it
  broken = new Error(`worker.js: ${event.message || "could not be loaded from the web server"}`);
  for (const { reject } of waiting.values()) reject(broken);
  waiting.clear();
};

/** What the model is, as manifest.json says. */
export async function describe() {
  const response = await fetch("manifest.json");
  if (!response.ok) throw new Error(`manifest.json: the web server answered ${response.status}`);
  const { metadata, files, labels, ...ofLatents } = await response.json();
  worker.postMessage({ files });
  const [channels, height, width] = JSON.parse(metadata.image_shape);
  return {
    imageShape: [height, width, channels],
    latentDim: Number(metadata.latent_dim),
    likelihood: metadata.likelihood,
    drawsStandardNormal: metadata.prior === "standard" && !metadata.aggregate_components,
    latentKl: ofLatents.latent_kl ?? null,
    latentMean: ofLatents.latent_mean ?? null,
    latentDeviation: ofLatents.latent_deviation ?? null,
    labels: labels ?? null,
    graphs: Object.keys(files).map((name) => name.replace(/\.onnx$/, "")),
    quantiles: files["scorer.onnx"]?.scores?.quantiles,
  };
}

/** One run of a graph: {name: {type, dims, data}} in, {name: typed array} out. */
export function run(graph, inputs, signal) {
  const id = count++;
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    if (broken) throw broken;
    signal?.addEventListener("abort", () => {
      waiting.delete(id);
      reject(signal.reason);
    });
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, graph, inputs });
  });
}
