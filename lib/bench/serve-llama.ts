// llama.cpp in `bench rollout`, through node-llama-cpp where the user has installed it; it is no dependency of this
// package. Weights come from a GGUF file that must hold the model's own at the same precision.
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ArcherError } from '../errors.js';
import { readModelFolder } from '../model/folder.js';
import type { Dtype } from './environment.js';
import { checkGguf, type GgufInfo } from './gguf.js';
import { Meter } from './meter.js';
import { randomSequences, readSamplingTask, type Served, serve } from './serve.js';

// Of node-llama-cpp 3, as far as it is used here.
interface Sequence {
  evaluate(tokens: number[], options: object): AsyncGenerator<number>;
  clearHistory(): Promise<void>;
}
interface Context {
  getSequence(): Sequence;
  dispose(): Promise<void>;
}
interface Library {
  getLlama(options: object): Promise<{
    loadModel(options: object): Promise<{ createContext(options: object): Promise<Context> }>;
  }>;
  readGgufFileInfo(path: string): Promise<GgufInfo>;
}

const trialTokens = 8;

await serve('llama.cpp', make);

async function make(): Promise<Served> {
  const task = readSamplingTask();
  const library = await load(task.llama);
  const folder = await readModelFolder(task.model);
  const gguf = resolve(task.gguf);
  checkGguf(gguf, await library.readGgufFileInfo(gguf), folder, task.dtype as Dtype);
  const llama = await library.getLlama({ gpu: false, build: 'never', maxThreads: task.threads, logLevel: 'error' });
  const meter = new Meter();
  const { batch, promptTokens, newTokens, threads } = task;
  const model = await llama.loadModel({ modelPath: gguf });
  const prompts = randomSequences(batch, promptTokens, folder.nativeConfig.vocabSize);
  const open = async (settings: object) => {
    const context = await model.createContext({
      sequences: batch,
      contextSize: promptTokens + newTokens + 1,
      threads: { ideal: threads, min: threads },
      ...settings,
    });
    const sequences = prompts.map(() => context.getSequence());
    return {
      context,
      sample: (count: number) => Promise.all(sequences.map((sequence, i) => respond(sequence, prompts[i]!, count, i))),
    };
  };

  let best = { seconds: Number.POSITIVE_INFINITY, settings: {} };
  for (const settings of candidates(batch * promptTokens)) {
    const { context, sample } = await open(settings);
    await sample(1);
    const began = performance.now();
    await sample(Math.min(trialTokens, newTokens));
    const seconds = (performance.now() - began) / 1000;
    if (seconds < best.seconds) best = { seconds, settings };
    await context.dispose();
  }
  const { sample } = await open(best.settings);
  return {
    details: { ...best.settings },
    meter,
    iterate: async () => {
      await sample(newTokens);
    },
  };
}

/** What is tried before the rounds; a batch larger than the prompts makes no difference. */
function candidates(promptTokens: number): { flashAttention: boolean; batchSize: number }[] {
  const sizes = promptTokens > 512 ? [512, 2048] : [512];
  return sizes.flatMap((batchSize) => [true, false].map((flashAttention) => ({ flashAttention, batchSize })));
}

async function respond(sequence: Sequence, prompt: number[], count: number, index: number): Promise<void> {
  await sequence.clearHistory();
  let tokens = 0;
  // A token that would end the response is handed out like any other, and sampling goes on.
  const options = { temperature: 1, topK: 0, topP: 1, minP: 0, seed: 1 + index, yieldEogToken: true };
  for await (const _ of sequence.evaluate(prompt, options)) {
    tokens += 1;
    if (tokens === count) return;
  }
  throw new ArcherError('ARCHER_E_INTERNAL', `llama.cpp ended a response after ${tokens} of ${count} tokens.`);
}

async function load(path: string): Promise<Library> {
  const folder = resolve(path);
  // The package's own folder, or one that has it in node_modules.
  const entry = [folder, join(folder, 'node_modules/node-llama-cpp')].find(isNodeLlamaCpp);
  if (!entry) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `--llama ${path} holds no node-llama-cpp; name the folder where \`npm install node-llama-cpp\` was run.`,
    );
  }
  return import(pathToFileURL(join(entry, 'dist/index.js')).href) as Promise<Library>;
}

function isNodeLlamaCpp(folder: string): boolean {
  const file = join(folder, 'package.json');
  return existsSync(file) && JSON.parse(readFileSync(file, 'utf8')).name === 'node-llama-cpp';
}
