// The model behind `vae serve`. Every function may be cancelled by an AbortSignal.

/** What the model is: image_shape [H, W, C], latent_dim, graphs, and where it came from. */
export async function metadata() {
  return (await request("metadata")).json();
}

/** Images first .. first + count - 1 of each seed, and their latents: uint8 [H * W * C] and float32 [latent_dim]. */
export async function sample(seeds, first, count, temperature, signal) {
  const rows = seeds.flatMap((seed) => Array.from({ length: count }, (_, i) => [seed, first + i]));
  const n = rows.length;
  const { images, z } = await infer("sampler", [
    { name: "seed", datatype: "INT64", shape: [n], data: rows.map(([seed]) => seed) },
    { name: "index", datatype: "INT64", shape: [n], data: rows.map(([, index]) => index) },
    { name: "temperature", datatype: "FP32", shape: [n], data: rows.map(() => temperature) },
  ], signal);
  return { images: split(new Uint8Array(images), n), z: split(new Float32Array(z), n) };
}

/** The images of latents. */
export async function decode(z, signal) {
  const response = await request("decode", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/octet-stream" },
    body: JSON.stringify({ z: z.map((row) => [...row]) }),
    signal,
  });
  return split(new Uint8Array(await response.arrayBuffer()), z.length);
}

/** The mean of q(z|x) of one image, uint8 [H * W * C] of the model's shape. */
export async function encode(pixels, shape, signal) {
  const images = { name: "images", datatype: "UINT8", shape: [1, ...shape], data: [...pixels] };
  return new Float32Array((await infer("encoder", [images], signal)).mu);
}

/** One run of a graph over the KServe v2 protocol: output name -> its bytes. */
async function infer(graph, inputs, signal) {
  const response = await request(`v2/models/${graph}/infer`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ inputs, parameters: { binary_data_output: true } }),
    signal,
  });
  const body = await response.arrayBuffer();
  let at = Number(response.headers.get("Inference-Header-Content-Length"));
  const { outputs } = JSON.parse(new TextDecoder().decode(body.slice(0, at)));
  return Object.fromEntries(outputs.map(({ name, parameters }) => {
    const start = at;
    at += parameters.binary_data_size;
    return [name, body.slice(start, at)];
  }));
}

async function request(path, options) {
  const response = await fetch(path, options);
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error ?? `the server answered ${response.status}`);
}

function split(array, n) {
  const size = array.length / n;
  return Array.from({ length: n }, (_, i) => array.slice(i * size, (i + 1) * size));
}
