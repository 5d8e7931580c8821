// The sampler: every epoch complete, no prompt twice in a batch, and a restored one goes on as if nothing had happened.

import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { createSampler } from '../../lib/data/sampler.js';

const shape = fc.record({
  size: fc.integer({ min: 1, max: 40 }),
  seed: fc.nat(),
  shares: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 30 }),
});
const batchSizes = ({ size, shares }: { size: number; shares: number[] }) =>
  shares.map((share) => Math.ceil(share * size));

test('every epoch holds every prompt once, whatever the batch sizes; no batch holds one twice', () => {
  fc.assert(
    fc.property(shape, (input) => {
      const sampler = createSampler(input);
      const counts = new Array<number>(input.size).fill(0);
      for (const k of batchSizes(input)) {
        const batch = sampler.next(k);
        expect(batch).toHaveLength(k);
        expect(new Set(batch).size).toBe(k);
        for (const prompt of batch) counts[prompt] = (counts[prompt] as number) + 1;
        // Every prompt has been handed out in each completed epoch, and at most once in the current one.
        for (const count of counts) expect([sampler.epoch, sampler.epoch + 1]).toContain(count);
        expect(sampler.drawn).toBe(counts.reduce((a, b) => a + b, 0));
      }
    }),
  );
});

test('restored anywhere, through JSON, it goes on exactly', () => {
  fc.assert(
    fc.property(shape, fc.nat(), (input, cut) => {
      const sizes = batchSizes(input);
      const uninterrupted = createSampler(input);
      const whole = sizes.map((k) => uninterrupted.next(k));
      const at = cut % sizes.length;
      const first = createSampler(input);
      const begun = sizes.slice(0, at).map((k) => first.next(k));
      const second = createSampler(input);
      second.next(Math.min(3, input.size));
      second.restore(JSON.parse(JSON.stringify(first.state())));
      expect([...begun, ...sizes.slice(at).map((k) => second.next(k))]).toEqual(whole);
      expect(second.state()).toEqual(uninterrupted.state());
    }),
  );
});

test('refilling a batch across the end of an epoch never repeats one of its prompts', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 30 }), fc.nat(), fc.nat(), (size, seed, before) => {
      const sampler = createSampler({ size, seed });
      sampler.next(before % size);
      const batch: number[] = [];
      while (batch.length < size) batch.push(...sampler.next(Math.min(3, size - batch.length), { exclude: batch }));
      expect(new Set(batch).size).toBe(size);
      const later: number[] = [];
      const missing = 2 * size - (before % size) - size;
      later.push(...sampler.next(missing));
      expect(sampler.drawn).toBe(2 * size);
    }),
  );
});

test('epochs differ, seeds differ, the same seed does not; shuffle off keeps the order', () => {
  const sampler = createSampler({ size: 50, seed: 7 });
  const [first, second] = [sampler.next(50), sampler.next(50)];
  expect(first).not.toEqual(second);
  expect(createSampler({ size: 50, seed: 7 }).next(50)).toEqual(first);
  expect(createSampler({ size: 50, seed: 8 }).next(50)).not.toEqual(first);
  expect(createSampler({ size: 50, seed: 7 + 2 ** 40 }).next(50)).not.toEqual(first);
  expect(createSampler({ size: 4, seed: 7, shuffle: false }).next(4)).toEqual([0, 1, 2, 3]);
});

test('the order is uniform: the mean place of every prompt over many epochs is near the middle', () => {
  const [size, epochs] = [10, 600];
  const sampler = createSampler({ size, seed: 1 });
  const places = new Array<number>(size).fill(0);
  for (let epoch = 0; epoch < epochs; epoch += 1) {
    sampler.next(size).forEach((prompt, place) => {
      places[prompt] = (places[prompt] as number) + place;
    });
  }
  // Standard deviation of a mean: sqrt((n² − 1) / 12 / epochs) = 0.117; five of them.
  for (const place of places) expect(Math.abs(place / epochs - (size - 1) / 2)).toBeLessThan(0.6);
});

test('errors: a batch larger than the data set, a state of another run', () => {
  const sampler = createSampler({ size: 4, seed: 1 });
  expect(() => sampler.next(5)).toThrow(/5 different prompts were asked for, but the data set has 4/);
  expect(() => sampler.next(2, { exclude: [0, 1, 2] })).toThrow(/besides the 3 of the batch/);
  expect(() => createSampler({ size: 0, seed: 1 })).toThrow(/at least one prompt/);
  for (const other of [
    { size: 5, seed: 1 },
    { size: 4, seed: 2 },
    { size: 4, seed: 1, shuffle: false },
  ]) {
    let thrown: unknown;
    try {
      sampler.restore(createSampler(other).state());
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: 'ARCHER_E_CHECKPOINT' });
  }
});
