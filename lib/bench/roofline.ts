// The time that sampling cannot go below on a machine with a given bandwidth and a given rate of matrix products. Every
// step reads all weights once and the keys and values of every sequence, and multiplies; whichever of weights and products
// takes longer counts, and keys and values come on top. Pure functions.
import type { NativeModelConfig } from '../native/types.js';
import type { Measurement } from './interleave.js';
import { median } from './statistics.js';

export interface SamplingShape {
  /** Prompts sampled together, and responses to each (default 1); a prompt is read once for all of its own. */
  batch: number;
  n?: number;
  promptTokens: number;
  newTokens: number;
}

/** What one iteration has to read and to compute. */
export interface SamplingWork {
  /** All matrices of the model, once. */
  weightBytes: number;
  /** Products of the prompts' one pass; the output head for their last tokens alone. */
  prefillFlops: number;
  stepFlops: number;
  /** Steps after that pass, which gives the first new token. */
  steps: number;
  /** Keys and values read in all steps together. */
  kvBytes: number;
}

export interface MachineRates {
  bytesPerSecond: number;
  flopsPerSecond: number;
}

/** @param bytes of one weight, key or value */
export function samplingWork(model: NativeModelConfig, shape: SamplingShape, bytes: number): SamplingWork {
  const { hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim, vocabSize } = model;
  const { batch, n = 1, promptTokens, newTokens } = shape;
  const layer = 2 * hiddenSize * headDim * (numHeads + numKvHeads) + 3 * hiddenSize * intermediateSize;
  const body = numLayers * layer;
  const head = vocabSize * hiddenSize;
  const steps = newTokens - 1;
  // Step s, counted from 1, attends to the prompt and s tokens behind it.
  const positions = steps * promptTokens + n * ((steps * (steps + 1)) / 2);
  return {
    weightBytes: (body + head) * bytes,
    prefillFlops: 2 * batch * (body * promptTokens + head),
    stepFlops: 2 * batch * n * (body + head),
    steps,
    kvBytes: batch * positions * 2 * numLayers * numKvHeads * headDim * bytes,
  };
}

export function floorSeconds(work: SamplingWork, { bytesPerSecond, flopsPerSecond }: MachineRates): number {
  const pass = (flops: number) => Math.max(work.weightBytes / bytesPerSecond, flops / flopsPerSecond);
  return pass(work.prefillFlops) + work.steps * pass(work.stepFlops) + work.kvBytes / bytesPerSecond;
}

/** Seconds that each phase of a training step cannot go below; prompts are computed once for their responses. */
export function stepFloor(
  model: NativeModelConfig,
  shape: Required<SamplingShape>,
  bytes: number,
  rates: MachineRates,
): Record<string, number> {
  const { batch, n, promptTokens, newTokens } = shape;
  const { weightBytes, stepFlops } = samplingWork(model, { batch: 1, promptTokens: 0, newTokens: 1 }, bytes);
  const headFlops = 2 * model.vocabSize * model.hiddenSize;
  const responseTokens = batch * n * newTokens;
  const forward = (stepFlops - headFlops) * (batch * promptTokens + responseTokens) + headFlops * responseTokens;
  // Of a weight: master, gradient and two moments are read, all but the gradient written; the model's own copy in bfloat16 too.
  const optimizerBytes = (weightBytes / bytes) * (28 + (bytes === 2 ? 2 : 0));
  return {
    generate: floorSeconds(samplingWork(model, shape, bytes), rates),
    score: forward / rates.flopsPerSecond,
    forward_backward: (3 * forward) / rates.flopsPerSecond,
    optimizer: optimizerBytes / rates.bytesPerSecond,
  };
}

/** The floor as a contestant: its time in every round, by phase, from the rates that archer-bench-roofline measured in that round. */
export function floorMeasurement(
  measured: Measurement,
  phasesOf: (rates: MachineRates) => Record<string, number>,
): Measurement {
  const rates = measured.samples.map(({ values = {} }) => ({
    bytesPerSecond: values.bytes_per_second ?? Number.NaN,
    flopsPerSecond: values.flops_per_second ?? Number.NaN,
  }));
  return {
    name: measured.name,
    samples: measured.samples.map(({ seconds, cpuSeconds }, i) => {
      const phases = Object.entries(phasesOf(rates[i]!));
      const floor = phases.reduce((sum, [, phase]) => sum + phase, 0);
      return {
        seconds: floor,
        cpuSeconds: (floor * cpuSeconds) / seconds,
        values: Object.fromEntries(phases.map(([phase, part]) => [`${phase}_seconds`, part])),
      };
    }),
    details: {
      gb_per_second: Number((median(rates.map(({ bytesPerSecond }) => bytesPerSecond)) / 1e9).toPrecision(4)),
      gflops: Number((median(rates.map(({ flopsPerSecond }) => flopsPerSecond)) / 1e9).toPrecision(4)),
      ...measured.details,
    },
  };
}
