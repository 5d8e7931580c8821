// Weighted files: shares that hold after every prompt, epochs of each file, no prompt twice in a batch, exact resume.

import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createMixture } from '../../lib/data/mixture.js';

const shape = fc
  .array(fc.record({ size: fc.integer({ min: 1, max: 20 }), weight: fc.double({ min: 0.1, max: 10, noNaN: true }) }), {
    minLength: 1,
    maxLength: 4,
  })
  .chain((files) =>
    fc.record({
      sizes: fc.constant(files.map(({ size }) => size)),
      weights: fc.constant(files.map(({ weight }) => weight)),
      seed: fc.nat(),
    }),
  );
const sum = (values: number[]) => values.reduce((a, b) => a + b, 0);
const fileOf = (sizes: number[], prompt: number) => sizes.findIndex((_, i) => prompt < sum(sizes.slice(0, i + 1)));

test('after any number of prompts, drawn one by one, each file is near its share', () => {
  fc.assert(
    fc.property(shape, (input) => {
      const mixture = createMixture(input);
      const counts = input.sizes.map(() => 0);
      for (let n = 1; n <= 100; n += 1) {
        const [prompt] = mixture.next(1) as [number];
        const file = fileOf(input.sizes, prompt);
        counts[file] = (counts[file] as number) + 1;
        expect(mixture.drawn).toBe(n);
        counts.forEach((count, i) => {
          const share = ((input.weights[i] as number) / sum(input.weights)) * n;
          expect(Math.abs(count - share)).toBeLessThan(input.sizes.length);
        });
      }
      expect(mixture.epoch).toBe(Math.floor(100 / sum(input.sizes)));
    }),
    { numRuns: 50 },
  );
});

test('within a file every prompt comes once before any comes again', () => {
  const sizes = [3, 5];
  const mixture = createMixture({ sizes, weights: [3, 1], seed: 1 });
  const drawn = Array.from({ length: 40 }, () => mixture.next(1)[0] as number);
  sizes.forEach((size, file) => {
    const own = drawn.filter((prompt) => fileOf(sizes, prompt) === file);
    for (let at = 0; at + size <= own.length; at += size) {
      expect(new Set(own.slice(at, at + size)).size).toBe(size);
    }
  });
  expect(drawn.filter((prompt) => prompt < 3)).toHaveLength(30);
});

test('no batch holds a prompt twice, also where a file is too small for its share or a batch is refilled', () => {
  fc.assert(
    fc.property(shape, fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 12 }), (input, shares) => {
      const mixture = createMixture(input);
      const size = sum(input.sizes);
      for (const share of shares) {
        const batch: number[] = [];
        const wanted = Math.ceil(share * size);
        while (batch.length < wanted) {
          batch.push(...mixture.next(Math.min(3, wanted - batch.length), { exclude: batch }));
        }
        expect(new Set(batch).size).toBe(wanted);
      }
    }),
    { numRuns: 100 },
  );
});

test('restored anywhere, through JSON, it goes on exactly', () => {
  fc.assert(
    fc.property(shape, fc.nat({ max: 30 }), (input, before) => {
      const k = Math.min(4, sum(input.sizes));
      const uninterrupted = createMixture(input);
      for (let i = 0; i < before; i += 1) uninterrupted.next(k);
      const resumed = createMixture(input);
      resumed.restore(JSON.parse(JSON.stringify(uninterrupted.state())));
      for (let i = 0; i < 10; i += 1) expect(resumed.next(k)).toEqual(uninterrupted.next(k));
      expect(resumed.state()).toEqual(uninterrupted.state());
    }),
    { numRuns: 50 },
  );
});

test('errors: a batch larger than the data, a cursor of other weights or of one file', () => {
  const mixture = createMixture({ sizes: [2, 2], weights: [1, 1], seed: 1 });
  expect(() => mixture.next(5)).toThrow(/5 different prompts were asked for, but the data set has 4/);
  expect(() => mixture.next(2, { exclude: [0, 1, 2] })).toThrow(/the data set has 1/);
  const other = createMixture({ sizes: [2, 2], weights: [1, 2], seed: 1 });
  expect(() => mixture.restore(other.state())).toThrow(expect.objectContaining({ code: 'ARCHER_E_CHECKPOINT' }));
  const resized = createMixture({ sizes: [2, 3], weights: [1, 1], seed: 1 });
  expect(() => mixture.restore(resized.state())).toThrow(/belongs to 3 prompts/);
});
