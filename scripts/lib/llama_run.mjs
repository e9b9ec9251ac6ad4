// Completes a prompt greedily with llama.cpp (npm package node-llama-cpp, prebuilt):
//   node llama_run.mjs MODULES_DIR PROMPT TOKENS MODEL...
// Prints one JSON line per model: {"model", "text"} or {"model", "error"}. Loads every file unmodified.
import {createRequire} from "node:module";
import {pathToFileURL} from "node:url";
const [modules, prompt, tokens, ...models] = process.argv.slice(2);
const entry = createRequire(modules + "/").resolve("node-llama-cpp");
const {getLlama, LlamaCompletion} = await import(pathToFileURL(entry));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error", maxThreads: 2});
let failed = false;
for (const path of models) {
  try {
    const model = await llama.loadModel({modelPath: path, gpuLayers: 0});
    const context = await model.createContext({contextSize: 512, threads: 2});
    const completion = new LlamaCompletion({contextSequence: context.getSequence()});
    const text = await completion.generateCompletion(prompt, {maxTokens: Number(tokens), temperature: 0});
    console.log(JSON.stringify({model: path, text}));
    await context.dispose();
    await model.dispose();
  } catch (e) {
    failed = true;
    console.log(JSON.stringify({model: path, error: String(e)}));
  }
}
process.exit(failed ? 1 : 0);
