// Where the graphs run: here behind the server. The static folder has another file of this name, which names onnx.js.
export { describe, run } from "./http.js";
