// Blocks of every type against Python's gguf: committed goldens, and fresh random blocks where that Python is at hand.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { type BlockTypeName, blockTypes, dequantize } from '../../lib/gguf/blocks.js';
import { pythonWith, runPython } from './python.js';

const golden = resolve(import.meta.dirname ?? '.', '../golden/gguf-blocks.json');
const { cases } = JSON.parse(readFileSync(golden, 'utf8')) as {
  cases: Record<string, { blocks: string; weights: string }>;
};
const types = Object.keys(blockTypes) as BlockTypeName[];

function expand(type: BlockTypeName, bytes: Uint8Array): Buffer {
  const { size, bytes: blockBytes } = blockTypes[type];
  const out = new Float32Array((bytes.length / blockBytes) * size);
  dequantize(type, bytes, out);
  return Buffer.from(out.buffer);
}

test('every type has a golden', () => expect(Object.keys(cases).sort()).toEqual([...types].sort()));

test.each(types)('%s is bit-equal to the golden', (type) => {
  const { blocks, weights } = cases[type]!;
  expect(expand(type, Buffer.from(blocks, 'base64')).toString('hex')).toBe(
    Buffer.from(weights, 'base64').toString('hex'),
  );
});

test('infinity and NaN stay what they are', () => {
  const read = (type: BlockTypeName, ...bytes: number[]) =>
    new Float32Array(Uint8Array.from(expand(type, Uint8Array.from(bytes))).buffer)[0];
  expect(read('F16', 0x00, 0x7c)).toBe(Number.POSITIVE_INFINITY);
  expect(read('F16', 0x00, 0xfc)).toBe(Number.NEGATIVE_INFINITY);
  expect(read('F16', 0x01, 0x7e)).toBeNaN();
  expect(read('BF16', 0xc0, 0x7f)).toBeNaN();
});

const python = pythonWith('gguf', 'numpy');

(python ? describe : describe.skip)('beside Python’s gguf', () => {
  test('2,000 random blocks of every type, bit for bit but for the patterns of NaN', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'archer-gguf-'));
    try {
      let state = 1;
      const byte = () => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return state >>> 24;
      };
      const blocks = types.map((type) => Uint8Array.from({ length: 2000 * blockTypes[type].bytes }, byte));
      for (const [i, type] of types.entries()) writeFileSync(join(dir, type), blocks[i]!);
      const script = `
import sys, gguf, numpy as np
np.seterr(all="ignore")
for name in sys.argv[2:]:
    path = sys.argv[1] + "/" + name
    data = np.fromfile(path, dtype=np.uint8).reshape(1, -1)
    gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]).astype("<f4").tofile(path + ".f32")`;
      await runPython(python!, script, [dir, ...types]);
      for (const [i, type] of types.entries()) {
        const canonical = (bytes: Buffer) =>
          new Uint32Array(Uint8Array.from(bytes).buffer).map((one) =>
            (one & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : one,
          );
        const [ours, theirs] = [expand(type, blocks[i]!), readFileSync(join(dir, `${type}.f32`))].map(canonical) as [
          Uint32Array,
          Uint32Array,
        ];
        expect({ type, length: ours.length, differs: ours.findIndex((one, at) => one !== theirs[at]) }).toEqual({
          type,
          length: theirs.length,
          differs: -1,
        });
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});
