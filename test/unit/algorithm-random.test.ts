// Philox against the authors' known answers, and the orders drawn from it.

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { drawMiniBatches } from '../../lib/algorithm/mini-batches.js';
import { keyedOrder, keyedUniform, philox4x32 } from '../../lib/algorithm/philox.js';

describe('philox4x32-10', () => {
  // kat_vectors of Random123: counter, key, result.
  test.each([
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const)('counter %p', (counter, key, result) => {
    expect(philox4x32([...counter], key)).toEqual([...result]);
  });
});

describe('keyed draws', () => {
  test('depend on the key alone and stay in [0, 1)', () => {
    const key = { seed: 2 ** 40 + 7, stream: 'miniBatches', a: 3, b: 1 } as const;
    const draws = Array.from({ length: 4000 }, (_, index) => keyedUniform(key, index));
    expect(keyedUniform(key, 17)).toBe(draws[17]);
    expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...draws)).toBeLessThan(1);
    // Mean of 4000 uniforms: standard deviation 0.0046.
    expect(Math.abs(draws.reduce((sum, draw) => sum + draw, 0) / 4000 - 0.5)).toBeLessThan(0.02);
    for (const other of [
      { ...key, seed: 7 },
      { ...key, a: 4 },
      { ...key, b: 2 },
      { ...key, stream: 'bootstrap' as const },
    ]) {
      expect(keyedUniform(other, 17)).not.toBe(draws[17]);
    }
  });

  test('an order is a permutation, and all orders of three come up', () => {
    const seen = new Map<string, number>();
    for (let step = 0; step < 600; ++step) {
      const order = keyedOrder(3, { seed: 1, stream: 'miniBatches', a: step }).join('');
      seen.set(order, (seen.get(order) ?? 0) + 1);
    }
    expect([...seen.keys()].sort()).toEqual(['012', '021', '102', '120', '201', '210']);
    // 100 expected each, standard deviation 9.1.
    expect(Math.min(...seen.values())).toBeGreaterThan(60);
    expect(keyedOrder(0, { seed: 1, stream: 'miniBatches' })).toEqual([]);
  });
});

describe('mini-batches', () => {
  test('every group once, ceil(kept / size) parts whose sizes differ by at most one', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 1, max: 80 }), fc.nat(), (kept, size, step) => {
        const parts = drawMiniBatches(kept, size, { seed: 5, step, epoch: 0 });
        expect(parts).toHaveLength(Math.ceil(kept / size));
        expect(parts.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: kept }, (_, index) => index));
        const sizes = parts.map((part) => part.length);
        if (kept > 0) {
          expect(Math.max(...sizes) - Math.min(...sizes)).toBeLessThanOrEqual(1);
          expect(Math.max(...sizes)).toBeLessThanOrEqual(size);
        }
      }),
    );
  });

  test('a new order for every epoch and step, the same one for the same key', () => {
    const key = { seed: 1, step: 4, epoch: 0 };
    const order = drawMiniBatches(40, 16, key);
    expect(drawMiniBatches(40, 16, { ...key })).toEqual(order);
    expect(drawMiniBatches(40, 16, { ...key, epoch: 1 })).not.toEqual(order);
    expect(drawMiniBatches(40, 16, { ...key, step: 5 })).not.toEqual(order);
    expect(drawMiniBatches(40, 16, { ...key, seed: 2 })).not.toEqual(order);
  });
});
