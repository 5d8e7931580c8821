// Logits of every family through the whole path (folder -> door -> C++) against transformers', and that each feature
// matters: switched off in the shape, it breaks the agreement.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type ModelFolder, readModelFolder } from '../../lib/model/folder.js';
import { readTensorTable } from '../../lib/model/safetensors.js';
import { Weights } from '../../lib/native/policy.js';
import type { NativeModelConfig } from '../../lib/native/types.js';
import { packIds } from '../../lib/rollout/local-engine.js';
import { writeModelFiles } from '../../lib/train/model-files.js';

interface Case {
  name: string;
  folder: string;
  features: string[];
  sequences: number[][];
  logits: string;
  tolerance: number;
}

const golden = resolve(import.meta.dirname ?? '.', '../golden');
const { cases, minChange } = JSON.parse(readFileSync(join(golden, 'model-goldens.json'), 'utf8')) as {
  cases: Case[];
  minChange: number;
};

async function expectedLogits(one: Case): Promise<Float32Array> {
  const table = await readTensorTable(join(golden, one.logits));
  const parts = one.sequences.map((_, i) => {
    const entry = table.find(({ name }) => name === `logits.${i}`)!;
    const bytes = readFileSync(entry.file).subarray(entry.begin, entry.end);
    return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  });
  return Float32Array.from(parts.flatMap((part) => Array.from(part)));
}

async function logitsOf(folder: ModelFolder, one: Case): Promise<Float32Array> {
  const weights = await Weights.load(folder, { numThreads: 1 });
  const { ids, offsets } = packIds(one.sequences.map((sequence) => Int32Array.from(sequence)));
  const logits = await weights.logits(ids, offsets);
  weights.dispose();
  return logits;
}

const maxDifference = (a: Float32Array, b: Float32Array) => {
  expect(a.length).toBe(b.length);
  return a.reduce((worst, value, i) => Math.max(worst, Math.abs(value - b[i]!)), 0);
};

/** The shape with one feature switched off, where the shape can say so. */
const without: Record<string, (config: NativeModelConfig) => NativeModelConfig> = {
  ropeScaling: (config) => ({ ...config, ropeScaling: undefined }),
  qkNorm: (config) => ({ ...config, qkNorm: false }),
  qkvBias: (config) => ({ ...config, qkvBias: false }),
  outputBias: (config) => ({ ...config, outputBias: false }),
  mlpBias: (config) => ({ ...config, mlpBias: false }),
};

describe.each(cases)('$name', (one) => {
  test('logits equal transformers’', async () => {
    const expected = await expectedLogits(one);
    const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
    const deviation = Math.sqrt(expected.reduce((sum, value) => sum + (value - mean) ** 2, 0) / expected.length);
    expect(deviation).toBeGreaterThanOrEqual(3);
    const folder = await readModelFolder(join(golden, one.folder));
    expect(maxDifference(await logitsOf(folder, one), expected)).toBeLessThanOrEqual(one.tolerance);
  });

  test.each(one.features.filter((feature) => feature in without))('%s matters', async (feature) => {
    const folder = await readModelFolder(join(golden, one.folder));
    const changed = { ...folder, nativeConfig: without[feature]!(folder.nativeConfig) };
    expect(maxDifference(await logitsOf(changed, one), await expectedLogits(one))).toBeGreaterThan(minChange);
  });

  test('save and load give the same logits, bit for bit', async () => {
    const folder = await readModelFolder(join(golden, one.folder));
    const weights = await Weights.load(folder, { numThreads: 1 });
    const dir = mkdtempSync(join(tmpdir(), 'archer-save-'));
    try {
      await writeModelFiles(dir, weights);
      weights.dispose();
      const again = await readModelFolder(dir);
      expect(await logitsOf(again, one)).toEqual(await logitsOf(folder, one));
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
