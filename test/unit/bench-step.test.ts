// The floor of a training step, rows with phases, the size of TRL's passes, and prompts that are the same in Python.
import { resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { Meter } from '../../lib/bench/meter.js';
import { smollm2 } from '../../lib/bench/random-model.js';
import { samplingWork, stepFloor } from '../../lib/bench/roofline.js';
import { randomSequences } from '../../lib/bench/serve.js';
import { makeRow } from '../../lib/bench/statistics.js';
import { responsesPerPass } from '../../lib/bench/step.js';
import { benchTable } from '../../lib/bench/table.js';
import { parseModelConfig } from '../../lib/model/config.js';
import { pythonWith, runPython } from './python.js';

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
const shape = { batch: 4, n: 8, promptTokens: 32, newTokens: 64 };

describe('the floor of a step', () => {
  test('reads a prompt once for all responses to it', () => {
    const alone = samplingWork(model, { ...shape, n: 1 }, 2);
    const work = samplingWork(model, shape, 2);
    expect(work.prefillFlops).toBe(alone.prefillFlops);
    expect(work.stepFlops).toBe(8 * alone.stepFlops);
    expect(work.kvBytes).toBe(23_040 * 4 * (63 * 32 + (8 * 63 * 64) / 2));
  });

  test('scores once and trains in three times that, 30 bytes a weight in bfloat16 and 28 in float32', () => {
    const rates = { bytesPerSecond: 1e9, flopsPerSecond: 1e12 };
    const weights = samplingWork(model, shape, 1).weightBytes;
    const bf16 = stepFloor(model, shape, 2, rates);
    expect(bf16.forward_backward).toBeCloseTo(3 * bf16.score!, 9);
    expect(bf16.optimizer).toBeCloseTo((30 * weights) / 1e9, 9);
    expect(stepFloor(model, shape, 4, rates).optimizer).toBeCloseTo((28 * weights) / 1e9, 9);
    const head = 2 * smollm2.vocab_size * smollm2.hidden_size;
    expect(bf16.score! * 1e12).toBeCloseTo((2 * weights - head) * (4 * 32 + 2048) + head * 2048, -3);
  });
});

test.each([
  [shape, 32],
  [{ ...shape, newTokens: 256 }, 8],
  [{ ...shape, batch: 3, n: 5, promptTokens: 500, newTokens: 500 }, 3],
  [{ ...shape, promptTokens: 4000, newTokens: 4000 }, 1],
])('TRL runs as many responses together as fit, in equal parts: %o', (one, responses) => {
  expect(responsesPerPass(one)).toBe(responses);
});

describe('phases', () => {
  const measurement = (name: string, generate: number, peak: number) => ({
    name,
    details: {},
    samples: [1, 2, 3].map((factor) => ({
      seconds: factor * (generate + 1),
      cpuSeconds: factor * (generate + 1),
      values: { generate_seconds: factor * generate, generate_peak_bytes: peak + factor },
    })),
  });
  const context = {
    bench: 'step',
    device: 'cpu',
    shape: 'tiny',
    dtype: 'bf16',
    memory: 'kept' as const,
    load: 0,
    busyCores: 0,
    foreignCores: 0,
    threads: 1,
  };

  test('are medians of times and largest peaks, in a table of their own', () => {
    const row = makeRow(context, measurement('archer', 2, 1e6), measurement('trl', 6, 5e6));
    expect(row.phases).toEqual({
      generate: { seconds: 4, rival_seconds: 12, ratio: 3, peak_bytes: 1e6 + 3, rival_peak_bytes: 5e6 + 3 },
    });
    expect(benchTable([row])).toMatch(/trl +generate +4\.000 s +12\.00 s +3\.000 +1 : 5/);
  });

  test('that one side does not have are left out', () => {
    const silent = {
      ...measurement('other', 1, 1),
      samples: [1, 2, 3].map((seconds) => ({ seconds, cpuSeconds: seconds })),
    };
    const row = makeRow(context, measurement('archer', 2, 1e6), silent);
    expect(row).not.toHaveProperty('phases');
  });

  test('are timed from call to call, each moment once', async () => {
    const meter = new Meter();
    const sleep = (milliseconds: number) => new Promise((done) => setTimeout(done, milliseconds));
    const work = {
      inner: () => sleep(30),
      outer: async () => {
        await sleep(30);
        await work.inner();
      },
    };
    meter.wrap(work, 'inner', 'inner');
    meter.wrap(work, 'outer', 'outer');
    meter.begin();
    await work.outer();
    const { seconds, inner_seconds: inner, outer_seconds: outer } = meter.end();
    expect(inner! + outer!).toBeLessThanOrEqual(seconds!);
    expect(inner!).toBeGreaterThan(0.025);
    expect(outer!).toBeGreaterThan(0.025);
    expect(outer!).toBeLessThan(seconds! - 0.025);
  });
});

const python = pythonWith('json');
(python ? test : test.skip)('TRL gets the same prompts', async () => {
  const script =
    'import json, sys; from rivals_common import random_prompts; print(json.dumps(random_prompts(3, 40, 49152)))';
  const bench = resolve(import.meta.dirname ?? '.', '../../bench');
  const prompts = JSON.parse(await runPython(python!, script, [], { PYTHONPATH: bench, PYTHONDONTWRITEBYTECODE: '1' }));
  expect(prompts).toEqual(randomSequences(3, 40, 49_152));
});
