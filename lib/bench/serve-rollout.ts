// Ours in `bench rollout`: the addon as a Node program calls it, since that is what people run; a whole generation is one
// call, so Node costs nothing in between. Nothing ends a response before its full length.
import { ArcherError } from '../errors.js';
import { readModelFolder } from '../model/folder.js';
import { buildInfo } from '../native/engine.js';
import { Weights } from '../native/policy.js';
import type { GenerateRequest } from '../native/types.js';
import { Meter } from './meter.js';
import { randomSequences, readSamplingTask, type Served, serve } from './serve.js';

await serve('archer', make);

async function make(): Promise<Served> {
  const task = readSamplingTask();
  const { libtorch, cpuCapability } = buildInfo();
  const meter = new Meter(); // after the libraries; the model counts
  const folder = await readModelFolder(task.model);
  const dtype = task.dtype === 'bf16' ? 'bfloat16' : 'float32';
  const weights = await Weights.load(folder, { dtype, numThreads: task.threads });
  const { batch, promptTokens, newTokens, batchInvariant } = task;
  const request: GenerateRequest = {
    promptIds: Int32Array.from(randomSequences(batch, promptTokens, folder.nativeConfig.vocabSize).flat()),
    promptOffsets: Int32Array.from({ length: batch + 1 }, (_, i) => i * promptTokens),
    promptKeys: Uint32Array.from({ length: batch }, (_, i) => i),
    numSamples: 1,
    seed: 1,
    step: 0,
    temperature: 1,
    topP: 1,
    topK: -1,
    minP: 0,
    maxNewTokens: newTokens,
    stopTokenIds: new Int32Array(),
    maxSlots: 0,
    kvBudgetBytes: 0,
    batchInvariant,
  };
  return {
    details: { libtorch, cpuCapability },
    meter,
    iterate: async () => {
      const { ids } = await weights.generate(request);
      if (ids.length === batch * newTokens) return;
      throw new ArcherError(
        'ARCHER_E_INTERNAL',
        `${ids.length} tokens were sampled in place of ${batch} x ${newTokens}.`,
      );
    },
  };
}
