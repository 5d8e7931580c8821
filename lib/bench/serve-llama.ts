// llama.cpp in `bench rollout`, through node-llama-cpp where the user has installed it; it is no dependency of this
// package. Weights come from a GGUF file that must hold the model's own at the same precision.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ArcherError } from '../errors.js';
import { readModelFolder } from '../model/folder.js';
import type { NativeModelConfig } from '../native/types.js';
import { randomPrompts, residentBytes, type SamplingTask, type Served, serve } from './serve.js';

// Of node-llama-cpp 3, as far as it is used here.
interface Sequence {
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
  clearHistory(): Promise<void>;
}
interface Library {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{ createContext(options: object): Promise<{ getSequence(): Sequence }> }>;
  }>;
  readGgufFileInfo(path: string): Promise<{ metadata: Record<string, Record<string, unknown>> }>;
}

// general.file_type of a GGUF file.
const fileTypes: Record<string, number> = { float32: 0, bf16: 32 };

await serve('llama.cpp', make);

async function make(task: SamplingTask): Promise<Served> {
  const library = await load(task.llama);
  const { nativeConfig } = await readModelFolder(task.model);
  await checkFile(library, task, nativeConfig);
  const llama = await library.getLlama({ gpu: false, build: 'never', maxThreads: task.threads, logLevel: 'error' });
  const baseBytes = residentBytes('VmRSS');
  const { batch, promptTokens, newTokens, threads } = task;
  const model = await llama.loadModel({ modelPath: resolve(task.gguf) });
  const context = await model.createContext({
    sequences: batch,
    contextSize: promptTokens + newTokens + 1,
    threads: { ideal: threads, min: threads },
  });
  const sequences = Array.from({ length: batch }, () => context.getSequence());
  const prompts = randomPrompts(task, nativeConfig.vocabSize);
  return {
    details: { gguf: task.gguf },
    baseBytes,
    iterate: async () => {
      await Promise.all(
        sequences.map(async (sequence, i) => {
          await sequence.clearHistory();
          let tokens = 0;
          // A token that would end the response is handed out like any other, and sampling goes on.
          const options = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 + i, yieldEogToken: true };
          for await (const _ of sequence.evaluate(prompts[i] as number[], options)) {
            tokens += 1;
            if (tokens === newTokens) break;
          }
          if (tokens === newTokens) return;
          throw new ArcherError(
            'ARCHER_E_INTERNAL',
            `llama.cpp ended a response after ${tokens} of ${newTokens} tokens.`,
          );
        }),
      );
    },
  };
}

async function load(path: string): Promise<Library> {
  const folder = resolve(path);
  // The package's own folder, or one that has it in node_modules.
  const own = existsSync(join(folder, 'package.json')) ? createRequire(join(folder, 'package.json')) : undefined;
  const isPackage = own?.('./package.json').name === 'node-llama-cpp';
  const entry = isPackage ? folder : join(folder, 'node_modules/node-llama-cpp');
  const file = join(entry, 'dist/index.js');
  if (!existsSync(file)) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--llama ${path} holds no node-llama-cpp; name the folder where \`npm install node-llama-cpp\` was run.`,
    );
  }
  return import(pathToFileURL(file).href) as Promise<Library>;
}

/** @throws ArcherError where the file holds another shape or another precision than the model */
async function checkFile(library: Library, { gguf, dtype }: SamplingTask, model: NativeModelConfig): Promise<void> {
  const { metadata } = await library.readGgufFileInfo(resolve(gguf));
  const { general = {}, llama = {}, qwen2 = {}, qwen3 = {} } = metadata;
  const shape = { ...qwen2, ...qwen3, ...llama };
  const pairs: [string, unknown, number | undefined][] = [
    ['file_type', general.file_type, fileTypes[dtype]],
    ['block_count', shape.block_count, model.numLayers],
    ['embedding_length', shape.embedding_length, model.hiddenSize],
    ['feed_forward_length', shape.feed_forward_length, model.intermediateSize],
  ];
  for (const [name, found, wanted] of pairs) {
    if (Number(found) === wanted) continue;
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--gguf ${gguf} has ${name} ${found} where the model at ${dtype} has ${wanted}; it must hold the same weights at the same precision.`,
    );
  }
}
