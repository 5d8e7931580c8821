// The matrix products of a training micro-batch, and the time they would take at the rate that this machine's fastest kernels reach
// for those same products. Pure functions.
import type { NativeModelConfig } from '../native/types.js';
import type { Measurement } from './interleave.js';
import { median } from './statistics.js';

export interface MicroBatchShape {
  sequences: number;
  /** Of each sequence, its prompt included. */
  tokens: number;
  promptTokens: number;
}

/** A linear layer: forward and both gradients are 6 · rows · outputs · inputs FLOPs. */
export interface LayerProducts {
  rows: number;
  outputs: number;
  inputs: number;
  /** Such layers in the model. */
  count: number;
}

export interface TrainingWork {
  layers: LayerProducts[];
  /** Of attention, forward and backward, over the pairs of a query and a key not behind it. */
  attentionFlops: number;
}

export function trainingWork(model: NativeModelConfig, shape: MicroBatchShape): TrainingWork {
  const { hiddenSize, intermediateSize, numLayers, numHeads, numKvHeads, headDim, vocabSize } = model;
  const rows = shape.sequences * shape.tokens;
  const queries = numHeads * headDim;
  const keys = numKvHeads * headDim;
  const all: [outputs: number, inputs: number, perLayer: number][] = [
    [queries, hiddenSize, 1],
    [keys, hiddenSize, 2],
    [hiddenSize, queries, 1],
    [intermediateSize, hiddenSize, 2],
    [hiddenSize, intermediateSize, 1],
  ];
  const layers: LayerProducts[] = [];
  for (const [outputs, inputs, perLayer] of all) {
    const same = layers.find((layer) => layer.outputs === outputs && layer.inputs === inputs);
    if (same) same.count += perLayer * numLayers;
    else layers.push({ rows, outputs, inputs, count: perLayer * numLayers });
  }
  // The head multiplies the states that predict a response token, and no others.
  const responses = shape.sequences * (shape.tokens - shape.promptTokens);
  layers.push({ rows: responses, outputs: vocabSize, inputs: hiddenSize, count: 1 });
  // Two products forward; backward one of them again and four gradients.
  const pairs = (shape.sequences * shape.tokens * (shape.tokens + 1)) / 2;
  return { layers, attentionFlops: 7 * 2 * pairs * queries * numLayers };
}

export const layerName = ({ rows, outputs, inputs }: LayerProducts) => `${rows}x${outputs}x${inputs}`;

/** The micro-batch at the rate of the bare products as a contestant: its time in every round, from that round's measurement. */
export function rateMeasurement(measured: Measurement, work: TrainingWork): Measurement {
  const layerFlops = work.layers.reduce((sum, layer) => sum + layer.count * flopsOf(layer), 0);
  const rates = measured.samples.map(({ values = {} }) => {
    const seconds = work.layers.reduce((sum, layer) => sum + layer.count * (values[layerName(layer)] ?? Number.NaN), 0);
    return layerFlops / seconds;
  });
  const flops = layerFlops + work.attentionFlops;
  return {
    name: measured.name,
    samples: measured.samples.map(({ seconds, cpuSeconds }, i) => {
      const floor = flops / rates[i]!;
      return { seconds: floor, cpuSeconds: (floor * cpuSeconds) / seconds };
    }),
    details: {
      gflop: Number((flops / 1e9).toPrecision(4)),
      gflops: Number((median(rates) / 1e9).toPrecision(4)),
      ...measured.details,
    },
  };
}

const flopsOf = ({ rows, outputs, inputs }: LayerProducts) => 6 * rows * outputs * inputs;
