// Runs graphs on any build of onnxruntime: tensors travel as {type, dims, data}, numbers as decimal strings.

const ARRAYS = { int64: BigInt64Array, float32: Float32Array };

/** The outputs, {name: tensor}, of `requests` = {file: [{input: tensor}, ...]}, in the same places; `open` is given a file. */
export async function runGraphs(ort, open, requests) {
  const answers = {};
  for (const [file, feeds] of Object.entries(requests)) {
    const session = await ort.InferenceSession.create(open(file));
    answers[file] = [];
    for (const feed of feeds) answers[file].push(await run(session, feed, ort.Tensor));
  }
  return answers;
}

async function run(session, feed, Tensor) {
  const inputs = mapValues(feed, ({ type, dims, data }) => {
    const parse = type === "int64" ? BigInt : Number;
    return new Tensor(type, ARRAYS[type].from(data, parse), dims);
  });
  const outputs = await session.run(inputs);
  return mapValues(outputs, ({ type, dims, data }) => ({ type, dims, data: Array.from(data, String) }));
}

function mapValues(object, f) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, f(value)]));
}
