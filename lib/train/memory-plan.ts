// What a run will hold in memory, part by part and phase by phase, and what is chosen to make it fit. Sizes of the engine's
// buffers come from the engine (lib/native/types.ts, MemoryParts); here they are added up. docs/memory.md is the long form.
import { loraOptions, type ResolvedConfig, needsReference } from '../config/index.js';
import type { MemoryParts, MemoryRequest, NativeModelConfig } from '../native/types.js';
import { problemsPerRound } from './evaluate.js';

/** What a step does one after the other; none needs its buffers while another runs. */
export const phases = ['sampling', 'scoring', 'update'] as const;
export type Phase = (typeof phases)[number];

export interface MemoryPart {
  name: string;
  bytes: number;
  /** Left out: all of the run. */
  phase?: Phase;
}

/** What the plan may change, and what it has come to. */
export interface MemoryChoices {
  dtype: 'float32' | 'bfloat16';
  gradientCheckpointing: boolean;
  /** Whether buffers stay between phases and steps, for the system clears every page that it gives out again. */
  keepBuffers: boolean;
  /** Tokens that a micro-batch computes, and a scoring pass. */
  microBatchTokens: number;
  /** 0: the cache grows as it must. */
  kvBudgetBytes: number;
  hasReference: boolean;
  maxResponseLength: number;
}

export interface MemoryPlan {
  parts: MemoryPart[];
  /** Bytes that each phase holds. */
  phases: Record<Phase, number>;
  peakPhase: Phase;
  peakBytes: number;
  budgetBytes: number;
  /** The KV cache at its largest; for one group, so that its samples need not wait for one another; for one sequence. */
  kv: { bytes: number; group: number; sequence: number };
  choices: MemoryChoices;
}

/** What a plan is made from. */
export interface MemoryJob {
  config: ResolvedConfig;
  model: NativeModelConfig;
  numThreads: number;
  /** Tokens of the training prompts and of those of a validation (empty where there is none), the longest first. */
  promptLengths: number[];
  validationLengths: number[];
  /** Resident before anything of the run is loaded: Node, libtorch, tokenizer, data. */
  processBytes: number;
  budgetBytes: number;
  /** The engine's sizes; memoryParts of lib/native/engine.ts. */
  partsOf: (request: MemoryRequest) => MemoryParts;
}

const defaultTokens = 4096;
// Below a thousand tokens products slow down, as every weight and its gradient are read for fewer of them.
const fewTokens = 1024;
const veryFewTokens = 256;
// What Node's heap and the pages of libtorch's code grow by in a run, whatever its model: 27 to 41 MiB were measured.
const growthBytes = 32 * 2 ** 20;
// Of a response token in JavaScript: ids, old, reference and sampled log-probs, entropies, text; twice while they are packed.
const bytesPerResponseToken = 56;

/** The configuration's own wishes; what it leaves to the plan is not yet cut down. */
function firstChoices({ config }: MemoryJob): MemoryChoices {
  return {
    dtype: config.model.dtype,
    gradientCheckpointing: config.model.gradient_checkpointing === true,
    keepBuffers: false,
    microBatchTokens: config.actor.ppo_max_token_len || defaultTokens,
    kvBudgetBytes: config.rollout.kv_budget_bytes,
    // Under adapters the reference is the model itself.
    hasReference: needsReference(config) && config.lora.rank === 0,
    maxResponseLength: config.data.max_response_length,
  };
}

interface SamplingRound {
  /** Longest first. */
  lengths: number[];
  n: number;
  running: number;
}

/** Sampling rounds of training and of validation: as many of the longest prompts as one of them holds. */
function samplingRounds({ config, promptLengths, validationLengths }: MemoryJob): SamplingRound[] {
  const { rollout, val, data } = config;
  const rounds = [
    { lengths: promptLengths.slice(0, data.train_batch_size), n: rollout.n },
    { lengths: validationLengths.slice(0, problemsPerRound(val.n)), n: val.n },
  ];
  return rounds.map((round) => {
    const responses = round.lengths.length * round.n;
    return { ...round, running: rollout.max_slots > 0 ? Math.min(rollout.max_slots, responses) : responses };
  });
}

/** Pages where every response grows to its limit: the whole pages of a prompt once for all responses to it. */
function mostPages(
  { lengths, n }: SamplingRound,
  running: number,
  maxResponseLength: number,
  pagePositions: number,
): number {
  let left = running;
  let pages = 0;
  for (const length of lengths) {
    const responses = Math.min(n, left);
    if (responses === 0) break;
    left -= responses;
    const shared = Math.floor(length / pagePositions);
    // The last token of a response is never fed back.
    pages += shared + responses * (Math.ceil((length + maxResponseLength - 1) / pagePositions) - shared);
  }
  return pages;
}

/** Parts, phases and peak for given choices; says nothing about whether that fits. */
export function estimateMemory(job: MemoryJob, choices: MemoryChoices): MemoryPlan {
  const { config, model, numThreads } = job;
  const rounds = samplingRounds(job);
  const longestPrompt = Math.max(...rounds.map(({ lengths }) => lengths[0] ?? 0));
  const longestSequence = longestPrompt + choices.maxResponseLength;
  const promptTokens = Math.max(...rounds.map(({ lengths }) => lengths.reduce((sum, length) => sum + length, 0)));
  const responses = config.data.train_batch_size * config.rollout.n;
  // A prompt is computed once for the responses to it.
  const stepTokens = config.data.train_batch_size * longestPrompt + responses * choices.maxResponseLength;
  const parts = job.partsOf({
    config: model,
    lora: loraOptions(config),
    dtype: choices.dtype,
    numThreads,
    // A step may have fewer tokens than a micro-batch takes, and a sequence more.
    microBatchTokens: Math.max(longestSequence, Math.min(choices.microBatchTokens, stepTokens)),
    gradientCheckpointing: choices.gradientCheckpointing,
    promptTokens,
    longestSequence,
    running: Math.max(...rounds.map(({ running }) => running)),
  });
  const kvFor = (running: (round: SamplingRound) => number) =>
    parts.page *
    Math.max(
      ...rounds.map((round) =>
        mostPages(round, Math.min(round.running, running(round)), choices.maxResponseLength, parts.pagePositions),
      ),
    );
  const wanted = kvFor((round) => round.running);
  const kv = {
    bytes: choices.kvBudgetBytes > 0 ? Math.min(wanted, choices.kvBudgetBytes) : wanted,
    group: kvFor((round) => round.n),
    sequence: kvFor(() => 1),
  };
  // Kept are the arena and the loss chunk, by the trainer, and what is freed between phases, by the allocator.
  const during = (phase: Phase): Pick<MemoryPart, 'phase'> => (choices.keepBuffers ? {} : { phase });
  const list: MemoryPart[] = [
    { name: 'process', bytes: job.processBytes + growthBytes },
    { name: 'weights', bytes: parts.weights },
    { name: 'master weights', bytes: parts.masters },
    { name: 'moments', bytes: parts.moments },
    { name: 'gradients', bytes: parts.gradients },
    { name: 'reference model', bytes: choices.hasReference ? parts.weights : 0 },
    { name: 'responses', bytes: responses * choices.maxResponseLength * bytesPerResponseToken },
    { name: 'KV cache', bytes: kv.bytes, phase: 'sampling' },
    { name: 'sampling buffers', bytes: parts.sampling, ...during('sampling') },
    { name: 'scoring buffers', bytes: parts.scoring, ...during('scoring') },
    { name: 'activations', bytes: parts.activations, ...during('update') },
    { name: 'micro-batch buffers', bytes: parts.microBatch, ...during('update') },
    { name: 'loss chunk', bytes: parts.lossChunk, ...during('update') },
  ];
  const sumOf = (phase: Phase) =>
    list.reduce((sum, part) => sum + (part.phase === undefined || part.phase === phase ? part.bytes : 0), 0);
  const sums = { sampling: sumOf('sampling'), scoring: sumOf('scoring'), update: sumOf('update') };
  const peakPhase = phases.reduce((a, b) => (sums[b] > sums[a] ? b : a));
  return {
    parts: list.filter(({ bytes }) => bytes > 0),
    phases: sums,
    peakPhase,
    peakBytes: sums[peakPhase],
    budgetBytes: job.budgetBytes,
    kv,
    choices,
  };
}

/**
 * The plan of a run: the configuration as it is where that fits, else with what it leaves to the plan cut down, the cheapest
 * first. It may still not fit: lib/train/memory-remedies.ts. Buffers are kept where all of them fit.
 *
 * @param resumed choices of the run's beginning, which a resumed run does not change: its last bits depend on them
 */
export function planMemory(
  job: MemoryJob,
  resumed?: Pick<MemoryChoices, 'microBatchTokens' | 'kvBudgetBytes'>,
): MemoryPlan {
  const { actor, model } = job.config;
  const fewerTokens = actor.ppo_max_token_len === 0 && !resumed;
  const steps: Partial<MemoryChoices>[] = [
    ...(fewerTokens ? [{ microBatchTokens: fewTokens }] : []),
    ...(model.gradient_checkpointing === 'auto' ? [{ gradientCheckpointing: true }] : []),
    ...(fewerTokens ? [{ microBatchTokens: veryFewTokens }] : []),
  ];
  let plan = estimateMemory(job, { ...firstChoices(job), ...resumed });
  for (const step of steps) {
    if (Math.max(plan.phases.scoring, plan.phases.update) <= job.budgetBytes) break;
    plan = estimateMemory(job, { ...plan.choices, ...step });
  }
  // Where sampling does not fit, its cache gets what is left, and sequences wait for one another.
  const left = job.budgetBytes - (plan.phases.sampling - plan.kv.bytes);
  const isShort = plan.phases.sampling > job.budgetBytes && plan.choices.kvBudgetBytes === 0 && !resumed;
  if (isShort && left >= plan.kv.group) plan = estimateMemory(job, { ...plan.choices, kvBudgetBytes: left });
  const kept = estimateMemory(job, { ...plan.choices, keepBuffers: true });
  return kept.peakBytes <= job.budgetBytes ? kept : plan;
}
