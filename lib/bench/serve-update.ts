// Ours in `bench update`: forward, Archer loss and backward of one packed micro-batch through the addon, as the trainer calls it.
import { readModelFolder } from '../model/folder.js';
import { buildInfo } from '../native/engine.js';
import { Weights } from '../native/policy.js';
import { Optimizer } from '../native/trainer.js';
import type { NativeLossOptions, PackedBatch } from '../native/types.js';
import { packIds } from '../rollout/local-engine.js';
import { Meter, residentBytes } from './meter.js';
import { randomSequences, readOptions, type Served, serve } from './serve.js';

// The paper's form with a dual clip, as in `bench loss`: classes by the rollout's entropies, KL on knowledge tokens.
const loss: NativeLossOptions = {
  tokenEntropyQuantile: 0.8,
  entropyTie: 'ge',
  entropySource: 'rollout',
  entropyScope: 'response',
  knowledgeClipLow: 0.2,
  knowledgeClipHigh: 0.2,
  reasoningClipLow: 0.5,
  reasoningClipHigh: 0.5,
  clipRatioC: 3,
  knowledgeKlCoef: 0.001,
  reasoningKlCoef: 0,
  klLossType: 'k3',
  lossAggMode: 'token-mean',
  klNormalizer: 'shared',
  lossNormLength: 1,
  entropyCoeff: 0,
  temperature: 1,
  chunkTokens: 0,
};

await serve('archer', make);

async function make(): Promise<Served> {
  const of = readOptions(['model', 'dtype', 'threads', 'sequences', 'tokens', 'prompt-tokens']);
  const { libtorch, cpuCapability } = buildInfo();
  const folder = await readModelFolder(of.model);
  const dtype = of.dtype === 'bf16' ? 'bfloat16' : 'float32';
  const weights = await Weights.load(folder, { dtype, trainable: true, numThreads: Number(of.threads) });
  const optimizer = await Optimizer.create(weights, {
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weightDecay: 0.01,
    decayAll: false,
    gradientCheckpointing: false,
  });
  const batch = (sequences: number, tokens: number) =>
    packed(weights, randomSequences(sequences, tokens, folder.nativeConfig.vocabSize), Number(of['prompt-tokens']));
  const measured = await batch(Number(of.sequences), Number(of.tokens));
  // Code pages, threads and the pages of gradients are nobody's extra memory; a rounded copy of the weights is ours.
  await optimizer.forwardBackward(await batch(1, Number(of['prompt-tokens']) + 2), loss);
  await optimizer.zeroGrad();
  await optimizer.releaseMemory();
  const roundedBytes = dtype === 'bfloat16' ? 2 * weights.numParameters : 0;
  return {
    details: { libtorch, cpuCapability },
    meter: new Meter(residentBytes('VmRSS') - roundedBytes),
    iterate: async () => {
      await optimizer.forwardBackward(measured, loss);
    },
  };
}

/** Old and reference log-probs lie beside the current ones, so that nearly every token has a gradient. */
async function packed(weights: Weights, sequences: number[][], promptTokens: number): Promise<PackedBatch> {
  const count = sequences.length;
  const prompts = packIds(sequences.map((ids) => Int32Array.from(ids.slice(0, promptTokens))));
  const responses = packIds(sequences.map((ids) => Int32Array.from(ids.slice(promptTokens))));
  // Each has a prompt of its own: nothing is shared, as in the rival.
  const apart = {
    promptIds: prompts.ids,
    promptOffsets: prompts.offsets,
    responseIds: responses.ids,
    responseOffsets: responses.offsets,
    promptOf: Int32Array.from(sequences, (_, i) => i),
  };
  const now = await weights.score({ ...apart, temperature: 1 });
  const responseTokens = responses.ids.length;
  return {
    ...apart,
    lossMask: new Uint8Array(responseTokens).fill(1),
    oldLogProbs: now.logProbs.map((logProb, t) => logProb - 0.05 * Math.sin(t)),
    oldEntropies: now.entropies.map((entropy, t) => Math.abs(entropy + 0.05 * Math.cos(t))),
    refLogProbs: now.logProbs.map((logProb, t) => logProb + 0.1 * Math.sin(3 * t)),
    advantages: Float32Array.from({ length: count }, (_, i) => (i % 2 === 0 ? 1 : -1)),
    denominators: { sequences: count, tokens: responseTokens, lossTokens: responseTokens },
  };
}
