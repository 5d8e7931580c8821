// The update of one step: ppo_epochs × mini-batches; for each, micro-batches of whole responses under one set of
// denominators, then one optimizer step (archer.md 4 and 6). Any packing gives the same gradients up to rounding.
import { drawMiniBatches } from '../algorithm/mini-batches.js';
import { type GroupLengths, packGroups } from '../algorithm/packing.js';
import { addRolloutDiff, noRolloutDiff, type RolloutDiff } from '../algorithm/rollout-diff.js';
import type { Weights } from '../native/policy.js';
import { runJob } from '../native/job.js';
import type { Optimizer } from '../native/trainer.js';
import type {
  Denominators,
  LossSums,
  NativeLossOptions,
  PackedBatch,
  PackedResponses,
  Scores,
} from '../native/types.js';
import { packIds } from '../rollout/local-engine.js';
import type { Sample } from './types.js';

export interface UpdateOptions {
  weights: Weights;
  optimizer: Optimizer;
  loss: NativeLossOptions;
  ppoEpochs: number;
  /** In prompts (groups). */
  miniBatchSize: number;
  /** Tokens that one micro-batch computes. */
  maxTokenLen: number;
  lr: number;
  gradClip: number;
  seed: number;
  step: number;
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** What one optimizer step did. */
export interface MiniBatchResult {
  loss: number;
  pgLoss: number;
  klLoss: number;
  sums: LossSums[];
  gradNorm: number;
  skipped: boolean;
}

export interface UpdateResult {
  miniBatches: MiniBatchResult[];
  /** Tokens that changed class from one inner epoch to the next, over those compared. */
  classFlips: { flipped: number; compared: number };
  /** Over the loss tokens of the first mini-batch, whose forward runs under the sampling weights. */
  rolloutDiff: RolloutDiff;
}

/** Runs the whole update of a step. Not interruptible: half an update is no state that could be saved. */
export async function updatePolicy(samples: Sample[], options: UpdateOptions): Promise<UpdateResult> {
  const { optimizer, loss, lr, gradClip, seed, step } = options;
  const groups = groupSamples(samples);
  const result: UpdateResult = {
    miniBatches: [],
    classFlips: { flipped: 0, compared: 0 },
    rolloutDiff: noRolloutDiff(),
  };
  const lastClasses = new Map<Sample, Uint8Array>();
  const total = samples.length * options.ppoEpochs;
  let done = 0;
  for (let epoch = 0; epoch < options.ppoEpochs; epoch++) {
    for (const part of drawMiniBatches(groups.length, options.miniBatchSize, { seed, step, epoch })) {
      const miniBatch = part.flatMap((group) => groups[group] as Sample[]);
      const denominators = denominatorsOf(miniBatch);
      const thresholds = await fixedThresholds(miniBatch, options);
      const isFirst = result.miniBatches.length === 0;
      const outcome = { loss: 0, pgLoss: 0, klLoss: 0, sums: [] as LossSums[] };
      for (const members of microBatches(miniBatch, options.maxTokenLen)) {
        const part = members.map((member) => miniBatch[member] as Sample);
        const batch = packBatch(part, denominators);
        if (thresholds) batch.thresholds = Float64Array.from(members, (member) => thresholds[member] as number);
        const micro = await optimizer.forwardBackward(batch, loss);
        outcome.loss += micro.loss;
        outcome.pgLoss += micro.pgLoss;
        outcome.klLoss += micro.klLoss;
        outcome.sums.push(micro.sums);
        part.forEach((sample, i) => {
          const [begin, end] = [batch.responseOffsets[i] as number, batch.responseOffsets[i + 1] as number];
          if (isFirst && sample.inLoss) {
            addRolloutDiff(result.rolloutDiff, sample.response.logProbs, micro.logProbs.subarray(begin, end));
          }
          if (options.ppoEpochs > 1) countFlips(result.classFlips, lastClasses, sample, micro.classes.slice(begin, end));
        });
        done += part.length;
        options.onProgress?.(done, total);
      }
      result.miniBatches.push({ ...outcome, ...(await optimizer.step({ lr, gradClip })) });
    }
  }
  return result;
}

/** Samples by group, in order. */
function groupSamples(samples: Sample[]): Sample[][] {
  const groups: Sample[][] = [];
  for (const sample of samples) {
    groups[sample.group] ??= [];
    groups[sample.group]?.push(sample);
  }
  return groups;
}

/** Indices into `samples`, which stand group by group, of the micro-batches. */
function microBatches(samples: Sample[], maxTokens: number): number[][] {
  const groups: GroupLengths[] = [];
  samples.forEach((sample, i) => {
    if (sample.group !== samples[i - 1]?.group) groups.push({ prompt: sample.prompt.ids.length, responses: [] });
    groups.at(-1)?.responses.push(sample.response.ids.length);
  });
  return packGroups(groups, maxTokens);
}

/** Those of the whole mini-batch. A response without loss tokens counts among the sequences. */
export function denominatorsOf(samples: Sample[]): Denominators {
  const tokens = samples.reduce((sum, sample) => sum + sample.response.ids.length, 0);
  const lossTokens = samples.reduce((sum, sample) => sum + (sample.inLoss ? sample.response.ids.length : 0), 0);
  return { sequences: samples.length, tokens, lossTokens };
}

/** Responses end to end as the native door wants them, and the prompt of each group among them. */
function packResponses(samples: Sample[]): PackedResponses {
  const firsts = samples.filter((sample, i) => sample.group !== samples[i - 1]?.group);
  const prompts = packIds(firsts.map((sample) => sample.prompt.ids));
  const responses = packIds(samples.map((sample) => sample.response.ids));
  const promptOf = new Map(firsts.map((sample, i) => [sample.group, i]));
  return {
    promptIds: prompts.ids,
    promptOffsets: prompts.offsets,
    responseIds: responses.ids,
    responseOffsets: responses.offsets,
    promptOf: Int32Array.from(samples, (sample) => promptOf.get(sample.group) as number),
  };
}

function packBatch(samples: Sample[], denominators: Denominators): PackedBatch {
  const packed = packResponses(samples);
  const tokens = packed.responseIds.length;
  const batch: PackedBatch = {
    ...packed,
    lossMask: new Uint8Array(tokens),
    oldLogProbs: new Float32Array(tokens),
    oldEntropies: new Float32Array(tokens),
    advantages: Float32Array.from(samples, (sample) => sample.advantage),
    denominators,
  };
  if (samples.some((sample) => sample.refLogProbs)) batch.refLogProbs = new Float32Array(tokens);
  samples.forEach((sample, i) => {
    const begin = packed.responseOffsets[i] as number;
    if (sample.inLoss) batch.lossMask.fill(1, begin, packed.responseOffsets[i + 1]);
    batch.oldLogProbs.set(sample.oldLogProbs, begin);
    batch.oldEntropies?.set(sample.oldEntropies, begin);
    if (sample.refLogProbs) batch.refLogProbs?.set(sample.refLogProbs, begin);
  });
  return batch;
}

/**
 * Scopes group and batch need one threshold over responses that may sit in different micro-batches, so it is fixed
 * before the first of them runs; with the current policy's entropies that costs one more forward of the mini-batch.
 */
async function fixedThresholds(samples: Sample[], options: UpdateOptions): Promise<Float64Array | undefined> {
  const { loss, weights } = options;
  if (loss.entropyScope === 'response') return undefined;
  const entropies =
    loss.entropySource === 'rollout'
      ? samples.map((sample) => sample.oldEntropies)
      : (await scoreSamples(weights, samples, loss.temperature, options.maxTokenLen)).map((one) => one.entropies);
  const tokens = samples.reduce((sum, sample) => sum + sample.response.ids.length, 0);
  const packed = { entropies: new Float32Array(tokens), lossMask: new Uint8Array(tokens) };
  let at = 0;
  samples.forEach((sample, i) => {
    const end = at + sample.response.ids.length;
    packed.entropies.set(entropies[i] as Float32Array, at);
    if (sample.inLoss) packed.lossMask.fill(1, at, end);
    at = end;
  });
  return runJob({}, () =>
    weights.engine.classThresholds({
      ...packed,
      lengths: Int32Array.from(samples, (sample) => sample.response.ids.length),
      groupIds: Int32Array.from(samples, (sample) => sample.group),
      quantile: loss.tokenEntropyQuantile,
      scope: loss.entropyScope,
    }),
  );
}

/** Log-probs and entropies of the samples' response tokens under some weights; samples stand group by group. */
export async function scoreSamples(
  weights: Weights,
  samples: Sample[],
  temperature: number,
  maxTokens: number,
  job: { signal?: AbortSignal | undefined; onProgress?: ((done: number, total: number) => void) | undefined } = {},
): Promise<Scores[]> {
  const { signal, onProgress } = job;
  const results: Scores[] = [];
  let done = 0;
  for (const members of microBatches(samples, maxTokens)) {
    const packed = packResponses(members.map((member) => samples[member] as Sample));
    const { logProbs, entropies } = await weights.score({ ...packed, temperature }, { signal });
    members.forEach((member, i) => {
      const [begin, end] = [packed.responseOffsets[i] as number, packed.responseOffsets[i + 1] as number];
      results[member] = { logProbs: logProbs.slice(begin, end), entropies: entropies.slice(begin, end) };
    });
    done += members.length;
    onProgress?.(done, samples.length);
  }
  return results;
}

function countFlips(
  flips: UpdateResult['classFlips'],
  last: Map<Sample, Uint8Array>,
  sample: Sample,
  classes: Uint8Array,
): void {
  const before = last.get(sample);
  if (before && sample.inLoss) {
    classes.forEach((one, t) => {
      if (one !== before[t]) flips.flipped += 1;
    });
    flips.compared += classes.length;
  }
  last.set(sample, classes);
}
