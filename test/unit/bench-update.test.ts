// The FLOPs of a training micro-batch, and the time they take at a measured rate.
import { describe, expect, test } from '@jest/globals';
import { layerName, rateMeasurement, trainingWork } from '../../lib/bench/products.js';
import { smollm2 } from '../../lib/bench/random-model.js';
import { microBatchFromName } from '../../lib/bench/update.js';
import { parseModelConfig } from '../../lib/model/config.js';

const model = parseModelConfig(
  {
    ...smollm2,
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_act: 'silu',
    rms_norm_eps: 1e-5,
    rope_theta: 1e5,
    tie_word_embeddings: true,
  },
  'config.json',
);

describe('the work of a micro-batch', () => {
  const work = trainingWork(model, { sequences: 4, tokens: 256, promptTokens: 64 });

  test('has every linear layer once by its shape, and the head over the responses', () => {
    expect(work.layers.map((layer) => `${layer.count} x ${layerName(layer)}`)).toEqual([
      '60 x 1024x576x576',
      '60 x 1024x192x576',
      '60 x 1024x1536x576',
      '30 x 1024x576x1536',
      '1 x 768x49152x576',
    ]);
  });

  test('they hold every weight of a matrix once: 134.5 million, the tied head included', () => {
    const weights = work.layers.reduce((sum, { outputs, inputs, count }) => sum + outputs * inputs * count, 0);
    expect(weights / 1e6).toBeCloseTo(134.5, 1);
  });

  test('attention counts the keys up to a query: one token has one pair per sequence', () => {
    const one = trainingWork(model, { sequences: 5, tokens: 1, promptTokens: 0 });
    expect(one.attentionFlops).toBe(7 * 2 * 5 * 576 * 30);
    expect(work.attentionFlops).toBe(7 * 2 * 4 * 128 * 257 * 576 * 30);
  });
});

test('at the rate of a round the FLOPs take so long', () => {
  const work = {
    layers: [
      { rows: 10, outputs: 20, inputs: 30, count: 2 },
      { rows: 5, outputs: 20, inputs: 30, count: 1 },
    ],
    attentionFlops: 45_000,
  };
  const sample = (seconds: number) => ({
    seconds: 3,
    cpuSeconds: 2.7,
    values: { '10x20x30': seconds, '5x20x30': seconds },
  });
  const measured = { name: 'gemm-rate', samples: [sample(1), sample(2), sample(3)], details: { '10x20x30': {} } };
  const { name, samples, details } = rateMeasurement(measured, work);
  expect(name).toBe('gemm-rate');
  // 90,000 FLOPs of layers in 3 s, and half as many of attention.
  expect(samples.map(({ seconds }) => seconds)).toEqual([4.5, 9, 13.5]);
  expect(samples[0]!.cpuSeconds).toBeCloseTo(4.05, 9);
  expect(details).toMatchObject({ gflop: 0.000135, gflops: 0.000015, '10x20x30': {} });
});

test('a shape names sequences and tokens, of which some are the prompt', () => {
  expect(microBatchFromName('8x512', 64)).toEqual({ sequences: 8, tokens: 512, promptTokens: 64 });
  for (const name of ['8', '8x', '0x9', '8x64', '8x512x2']) {
    expect(() => microBatchFromName(name, 64)).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_CONFIG', message: expect.stringContaining(name) }),
    );
  }
});
