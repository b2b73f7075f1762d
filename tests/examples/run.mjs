// node run.mjs PACKAGE MODEL: requests as JSON on standard input, answers on standard output.

import { readFileSync } from "node:fs";
import { runGraph } from "./graphs.mjs";

const [name, model] = process.argv.slice(2);
const ort = await import(name);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const answers = await runGraph(ort, new Uint8Array(readFileSync(model)), JSON.parse(readFileSync(0, "utf-8")));
process.stdout.write(JSON.stringify(answers), () => process.exit(0)); // its worker threads would keep wasm alive
