// node run.mjs PACKAGE FOLDER: requests to the folder's graphs as JSON on standard input, answers on standard output.

import { readFileSync } from "node:fs";
import { runGraphs } from "./graphs.mjs";

const [name, folder] = process.argv.slice(2);
const ort = await import(name);
if (ort.env.wasm) ort.env.wasm.numThreads = 1;
const open = (file) => new Uint8Array(readFileSync(`${folder}/${file}`));
const answers = await runGraphs(ort, open, JSON.parse(readFileSync(0, "utf-8")));
process.stdout.write(JSON.stringify(answers), () => process.exit(0)); // its worker threads would keep wasm alive
