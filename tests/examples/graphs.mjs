// Runs a graph on any build of onnxruntime: tensors travel as {type, dims, data}, numbers as decimal strings.

const ARRAYS = { int64: BigInt64Array, float32: Float32Array };

/** The outputs of each of `requests`, {input: tensor}, in order. */
export async function runGraph(ort, model, requests) {
  const session = await ort.InferenceSession.create(model);
  const answers = [];
  for (const request of requests) {
    const feeds = mapValues(request, ({ type, dims, data }) => {
      const parse = type === "int64" ? BigInt : Number;
      return new ort.Tensor(type, ARRAYS[type].from(data, parse), dims);
    });
    const outputs = await session.run(feeds);
    answers.push(mapValues(outputs, ({ type, dims, data }) => ({ type, dims, data: Array.from(data, String) })));
  }
  return answers;
}

function mapValues(object, f) {
  return Object.fromEntries(Object.entries(object).map(([name, value]) => [name, f(value)]));
}
