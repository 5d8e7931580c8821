// The roofline of sampling, rows with tokens per second, and the model with random weights.
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { environment, groupsWithin } from '../../lib/bench/environment.js';
import { checkGguf, type GgufInfo } from '../../lib/bench/gguf.js';
import { type LlamaShape, makeRandomModel, smollm2 } from '../../lib/bench/random-model.js';
import { floorMeasurement, floorSeconds, samplingWork } from '../../lib/bench/roofline.js';
import { randomSequences } from '../../lib/bench/serve.js';
import { makeRow } from '../../lib/bench/statistics.js';
import { benchTable } from '../../lib/bench/table.js';
import { parseModelConfig } from '../../lib/model/config.js';
import { readModelFolder } from '../../lib/model/folder.js';
import { tempDir } from '../train/tiny-run.js';

let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir.remove());

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

describe('the roofline', () => {
  test('reads what performance.md says: 269 MB of weights, 23,040 bytes of keys and values per position', () => {
    const work = samplingWork(model, { batch: 1, promptTokens: 64, newTokens: 128 }, 2);
    expect(work.weightBytes / 1e6).toBeCloseTo(269, 0);
    expect(work.steps).toBe(127);
    const positions = Array.from({ length: 127 }, (_, s) => 64 + s + 1).reduce((sum, one) => sum + one);
    expect(work.kvBytes).toBe(23_040 * positions);
    expect(work.stepFlops).toBe(work.weightBytes);
  });

  test('the head multiplies the last token of each prompt alone', () => {
    const one = samplingWork(model, { batch: 1, promptTokens: 1, newTokens: 1 }, 2);
    const many = samplingWork(model, { batch: 1, promptTokens: 11, newTokens: 1 }, 2);
    const head = 2 * smollm2.vocab_size * smollm2.hidden_size;
    expect(many.prefillFlops - one.prefillFlops).toBe(10 * (one.prefillFlops - head));
    expect(one).toMatchObject({ steps: 0, kvBytes: 0, prefillFlops: one.stepFlops });
  });

  test.each([
    ['reading the weights bounds a small batch', { bytesPerSecond: 100, flopsPerSecond: 1e9 }, 10 + 3 * 10 + 4],
    ['products bound a large one', { bytesPerSecond: 100, flopsPerSecond: 10 }, 400 + 3 * 50 + 4],
    ['each part by its own bound', { bytesPerSecond: 100, flopsPerSecond: 100 }, 40 + 3 * 10 + 4],
  ])('%s', (_, rates, seconds) => {
    const work = { weightBytes: 1000, prefillFlops: 4000, stepFlops: 500, steps: 3, kvBytes: 400 };
    expect(floorSeconds(work, rates)).toBeCloseTo(seconds, 9);
  });

  test('takes the rates of each round, and the share of a processor that measuring them got', () => {
    const sample = (rate: number) => ({
      seconds: 2,
      cpuSeconds: 1.9,
      values: { bytes_per_second: rate, flops_per_second: 1e12 },
    });
    const measured = { name: 'roofline', samples: [sample(1e9), sample(2e9), sample(4e9)], details: { kernel: 'mkl' } };
    const work = { weightBytes: 1e9, prefillFlops: 1, stepFlops: 1, steps: 1, kvBytes: 0 };
    const floor = floorMeasurement(measured, (rates) => ({ generate: floorSeconds(work, rates) }));
    expect(floor.samples.map(({ seconds }) => seconds)).toEqual([2, 1, 0.5]);
    expect(floor.samples[0]!.cpuSeconds).toBeCloseTo(1.9, 9);
    expect(floor.details).toEqual({ gb_per_second: 2, gflops: 1000, kernel: 'mkl' });
  });
});

describe('a row', () => {
  const samples = (...seconds: number[]) => seconds.map((one) => ({ seconds: one, cpuSeconds: one }));
  const context = {
    bench: 'rollout',
    device: 'cpu',
    shape: 'smollm2-135m b32 64+128',
    dtype: 'bf16',
    memory: 'kept' as const,
    tokens: 32 * 128,
    load: 0.1,
    busyCores: 0,
    foreignCores: 0,
    threads: 1,
  };
  const ours = { name: 'archer', samples: samples(8, 8, 8, 8, 8, 8, 8), details: {} };
  const floor = { name: 'roofline', samples: samples(6, 6, 6, 6, 6, 6, 6), details: {} };
  const hf = { name: 'hf', samples: samples(24, 24, 24, 24, 24, 24, 24), details: {} };

  test('has tokens per second of both, and the rival’s distance from the roofline', () => {
    expect(makeRow(context, ours, hf, floor)).toMatchObject({
      ratio: 3,
      tokens_per_second: 512,
      rival_tokens_per_second: 170.7,
      rival_over_floor: 4,
      quotable: true,
    });
    expect(makeRow(context, ours, floor, floor)).toMatchObject({ ratio: 0.75, rival_over_floor: null });
    const { tokens: _, ...silent } = context;
    expect(makeRow(silent, ours, hf)).not.toHaveProperty('tokens_per_second');
  });

  test('shows them in the table, which has no such column elsewhere', () => {
    expect(benchTable([makeRow(context, ours, hf, floor)])).toMatch(/tokens\/s.*\n.* 512 : 171 /);
    const { tokens: _, ...silent } = context;
    expect(benchTable([makeRow(silent, ours, hf)])).not.toContain('tokens/s');
  });
});

describe('random weights', () => {
  const tiny: LlamaShape = {
    hidden_size: 32,
    intermediate_size: 48,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 64,
    max_position_embeddings: 128,
  };

  test('are a model folder without a zero in it, made once', async () => {
    const path = makeRandomModel(join(dir.path, 'random'), tiny);
    const folder = await readModelFolder(path);
    expect(folder.nativeConfig).toMatchObject({ hiddenSize: 32, numLayers: 2, numKvHeads: 2, tieWordEmbeddings: true });
    const bytes = readFileSync(join(path, 'model.safetensors'));
    for (const { begin, end, shape } of folder.tensors) {
      const values = new Uint16Array(bytes.buffer.slice(bytes.byteOffset + begin, bytes.byteOffset + end));
      expect(values.length).toBe(shape.reduce((product, one) => product * one, 1));
      expect(values.some((value) => (value & 0x7fff) === 0)).toBe(false);
      if (shape.length === 2) expect(new Set(values).size).toBeGreaterThan(50);
    }
    makeRandomModel(path, { ...tiny, hidden_size: 64 });
    expect((await readModelFolder(path)).nativeConfig.hiddenSize).toBe(32);
  });

  test('where they cannot be written, the folder and the way out are named', () => {
    const impossible = join(dir.path, 'random/config.json/model');
    expect(() => makeRandomModel(impossible, tiny)).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_IO', message: expect.stringContaining('--model') }),
    );
  });

  test('prompts are the same ones in every process, and hold no special ids', () => {
    const prompts = randomSequences(3, 200, 64);
    expect(prompts).toEqual(randomSequences(3, 200, 64));
    expect(prompts.map((ids) => ids.length)).toEqual([200, 200, 200]);
    expect(new Set(prompts.map(String)).size).toBe(3);
    expect(Math.min(...prompts.flat())).toBeGreaterThanOrEqual(3);
    expect(Math.max(...prompts.flat())).toBeLessThan(64);
  });
});

test('contestants that do not fit together are run in groups', () => {
  const rivals = ['hf', 'llama.cpp'];
  expect(groupsWithin(rivals, { always: 2, bytesOf: () => 1, budget: 4 })).toEqual([rivals]);
  expect(groupsWithin(rivals, { always: 2, bytesOf: () => 1, budget: 3 })).toEqual([['hf'], ['llama.cpp']]);
  expect(groupsWithin([], { always: 2, bytesOf: () => 1, budget: 0 })).toEqual([[]]);
});

test('the environment of a contestant: its threads, and the allocator as it was asked for', () => {
  expect(environment(2, 'kept')).toEqual(expect.arrayContaining(['OMP_NUM_THREADS=2', 'MALLOC_MMAP_MAX_=0']));
  expect(environment(2, 'default').join(' ')).not.toContain('MALLOC_MMAP_MAX_=');
});

describe('a GGUF file', () => {
  const folderPath = resolve(import.meta.dirname ?? '.', '../golden/models/qwen2-hub-bfloat16');
  const info = (changes: Partial<Record<string, unknown>> = {}): GgufInfo => ({
    metadata: {
      general: { architecture: 'qwen2', file_type: changes.file_type ?? 32 },
      qwen2: { block_count: changes.block_count ?? 2, embedding_length: 32, feed_forward_length: 48 },
    },
    tensorInfo: [{ name: 'token_embd.weight', ggmlType: 30, fileOffset: 64n }],
  });

  /** A file with the model's embedding at byte 64, one bit of it flipped where asked. */
  async function gguf(flip: boolean) {
    const folder = await readModelFolder(folderPath);
    const { file, begin, end } = folder.tensors.find(({ name }) => name === 'model.embed_tokens.weight')!;
    const bytes = Buffer.concat([Buffer.alloc(64), readFileSync(file).subarray(begin, end)]);
    if (flip) bytes[64 + 201]! ^= 0x80;
    const path = join(dir.path, `embedding-${flip}.gguf`);
    writeFileSync(path, bytes);
    return { folder, path };
  }

  test('with the model’s own numbers is accepted', async () => {
    const { folder, path } = await gguf(false);
    expect(() => checkGguf(path, info(), folder, 'bf16')).not.toThrow();
  });

  test.each([
    ['other numbers', info(), 'bf16', 'another embedding', true],
    ['another shape', info({ block_count: 3 }), 'bf16', 'block_count 3 where the model has 2', false],
    ['another precision', info({ file_type: 1 }), 'bf16', 'file_type 1 where the model has 32', false],
    ['a precision that was not asked for', info(), 'float32', 'file_type 32 where the model has 0', false],
    ['no embedding', { ...info(), tensorInfo: [] }, 'bf16', 'cannot be compared', false],
  ] as const)('with %s is refused by name', async (_, told, dtype, words, flip) => {
    const { folder, path } = await gguf(flip);
    expect(() => checkGguf(path, told, folder, dtype)).toThrow(
      expect.objectContaining({ code: 'ARCHER_E_CONFIG', message: expect.stringContaining(words) }),
    );
  });
});
