// The addon's logits against those of transformers (tools/goldens/make_model_goldens.py), for every family and way of
// storing a model; then each feature left out, which the same comparison must notice.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { type ModelFolder, readModelFolder } from '../../lib/model/folder.js';
import { readTensorTable } from '../../lib/model/safetensors.js';
import { Weights } from '../../lib/native/policy.js';
import type { NativeModelConfig } from '../../lib/native/types.js';
import { writeModelFiles } from '../../lib/train/model-files.js';

interface Case {
  name: string;
  folder: string;
  features: string[];
  sequences: number[][];
  logits: string;
  tolerance: number;
}

const here = dirname(fileURLToPath(import.meta.url));
const golden = JSON.parse(readFileSync(join(here, 'model-goldens.json'), 'utf8')) as { minChange: number; cases: Case[] };

/** logits.0, logits.1, … of the case, end to end. */
async function expectedLogits(item: Case): Promise<Float32Array> {
  const table = await readTensorTable(join(here, item.logits));
  const parts = item.sequences.map((_, i) => {
    const entry = table.find(({ name }) => name === `logits.${i}`);
    if (!entry) throw new Error(`${item.logits} has no logits.${i}`);
    const bytes = readFileSync(entry.file).subarray(entry.begin, entry.end);
    return Array.from({ length: bytes.length / 4 }, (_, j) => bytes.readFloatLE(4 * j));
  });
  return Float32Array.from(parts.flat());
}

async function addonLogits(folder: ModelFolder, sequences: readonly number[][]): Promise<Float32Array> {
  const weights = await Weights.load(folder);
  const offsets = sequences.reduce((sums, ids) => [...sums, (sums.at(-1) ?? 0) + ids.length], [0]);
  try {
    return await weights.logits(Int32Array.from(sequences.flat()), Int32Array.from(offsets));
  } finally {
    await weights.dispose();
  }
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  expect(a.length).toBe(b.length);
  return a.reduce((largest, value, i) => {
    const difference = Math.abs(value - (b[i] ?? Number.NaN));
    return difference <= largest ? largest : difference; // a NaN stays
  }, 0);
}

const switchedOff: Record<string, Partial<NativeModelConfig>> = {
  ropeScaling: { ropeScaling: undefined },
  qkNorm: { qkNorm: false },
  qkvBias: { qkvBias: false },
  outputBias: { outputBias: false },
  mlpBias: { mlpBias: false },
};

describe.each(golden.cases)('$name', (item) => {
  test('logits of transformers', async () => {
    const folder = await readModelFolder(join(here, item.folder));
    const logits = await addonLogits(folder, item.sequences);
    expect(largestDifference(logits, await expectedLogits(item))).toBeLessThanOrEqual(item.tolerance);
  });

  test('the golden can fail: its logits spread by 3 or more', async () => {
    const expected = await expectedLogits(item);
    const mean = expected.reduce((sum, value) => sum + value, 0) / expected.length;
    const variance = expected.reduce((sum, value) => sum + (value - mean) ** 2, 0) / expected.length;
    expect(Math.sqrt(variance)).toBeGreaterThanOrEqual(3);
  });

  test('saved and loaded again, the logits are the same bit for bit', async () => {
    const folder = await readModelFolder(join(here, item.folder));
    const weights = await Weights.load(folder);
    const dir = mkdtempSync(join(tmpdir(), 'archer-save-'));
    try {
      await writeModelFiles(dir, weights);
      const again = await readModelFolder(dir);
      expect(await addonLogits(again, item.sequences)).toEqual(await addonLogits(folder, item.sequences));
    } finally {
      weights.dispose();
      rmSync(dir, { recursive: true });
    }
  });

  const features = item.features.filter((feature) => feature in switchedOff);
  if (features.length > 0) {
    test.each(features)('without %s the logits are others', async (feature) => {
      const folder = await readModelFolder(join(here, item.folder));
      const reduced = { ...folder, nativeConfig: { ...folder.nativeConfig, ...switchedOff[feature] } };
      const logits = await addonLogits(reduced, item.sequences);
      expect(largestDifference(logits, await expectedLogits(item))).toBeGreaterThan(golden.minChange);
    });
  }
});
