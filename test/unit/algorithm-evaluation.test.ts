// pass@k, maj@n, bootstrap intervals.

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  bootstrapIntervals,
  evaluationMetrics,
  majorityIndex,
  passAtK,
  reportedKs,
} from '../../lib/algorithm/pass-at-k.js';

/** The share of the k-subsets of n responses (the first c right) that hold a right one, by counting all subsets. */
function bySubsets(n: number, c: number, k: number): number {
  let [all, hits] = [0, 0];
  for (let set = 0; set < 1 << n; ++set) {
    const members = Array.from({ length: n }, (_, index) => index).filter((index) => (set >> index) & 1);
    if (members.length !== k) continue;
    ++all;
    if (members.some((index) => index < c)) ++hits;
  }
  return hits / all;
}

describe('pass@k', () => {
  test('equals counting the subsets', () => {
    for (let n = 1; n <= 7; ++n) {
      for (let c = 0; c <= n; ++c) {
        for (let k = 1; k <= n; ++k) expect(passAtK(n, c, k)).toBeCloseTo(bySubsets(n, c, k), 12);
      }
    }
  });

  test('stays exact where binomials overflow', () => {
    expect(passAtK(100_000, 50_000, 1)).toBeCloseTo(0.5, 9);
    expect(passAtK(4096, 1, 2048)).toBeCloseTo(0.5, 12);
  });

  test('k above n is an error that says what to raise', () => {
    expect(() => passAtK(4, 1, 8)).toThrow(/pass@8 needs at least 8 responses per problem, and there are 4/);
    expect(() => passAtK(4, 1, 0)).toThrow(expect.objectContaining({ code: 'ARCHER_E_CONFIG' }));
  });

  test('the reported k', () => {
    expect([1, 2, 6, 8].map(reportedKs)).toEqual([[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]);
  });
});

describe('majority', () => {
  test.each([
    [['3', '4', '4'], 1],
    [['3', '4', '4', '3'], 0],
    [[undefined, undefined, '7'], 2],
    [[undefined], -1],
    [[], -1],
  ])('%p → %i', (votes, index) => {
    expect(majorityIndex(votes)).toBe(index);
  });
});

describe('bootstrap', () => {
  const bootstrapInterval = (values: number[], options: { seed: number; resamples?: number }) =>
    bootstrapIntervals([values], options)[0]!;

  test('the interval holds the mean, is reproducible, and has the width of the normal one', () => {
    const values = Array.from({ length: 400 }, (_, index) => (index % 4 === 0 ? 1 : 0));
    const interval = bootstrapInterval(values, { seed: 3 });
    expect(bootstrapInterval(values, { seed: 3 })).toEqual(interval);
    expect(interval.mean).toBe(0.25);
    // 1.96 · sqrt(.25 · .75 / 400) = 0.0424 on either side.
    expect(interval.low).toBeGreaterThan(0.2);
    expect(interval.low).toBeLessThan(0.215);
    expect(interval.high).toBeGreaterThan(0.285);
    expect(interval.high).toBeLessThan(0.3);
  });

  test('low ≤ mean ≤ high within the values; no problem is an error', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 8 }), { minLength: 1, maxLength: 20 }),
        fc.nat(),
        (values, seed) => {
          const { low, high } = bootstrapInterval(values, { seed, resamples: 50 });
          expect(low).toBeLessThanOrEqual(high);
          expect(low).toBeGreaterThanOrEqual(Math.min(...values));
          expect(high).toBeLessThanOrEqual(Math.max(...values));
        },
      ),
      { numRuns: 30 },
    );
    expect(() => bootstrapInterval([], { seed: 1 })).toThrow(expect.objectContaining({ code: 'ARCHER_E_DATA' }));
  });
});

describe('evaluation metrics', () => {
  const problems = [
    { scores: [1, 0, 0, 0], votes: ['5', '6', '6', undefined] },
    { scores: [1, 1, 0, 1], votes: ['5', '5', '7', '5'] },
  ];

  test('avg, pass and maj by name, with intervals', () => {
    const metrics = evaluationMetrics(problems, { seed: 1, metrics: ['avg@n', 'pass@k', 'maj@n'] });
    expect(Object.keys(metrics).filter((name) => !name.includes('/'))).toEqual([
      'avg@4',
      'pass@1',
      'pass@2',
      'pass@4',
      'maj@4',
    ]);
    expect(metrics).toMatchObject({ 'avg@4': 0.5, 'pass@1': 0.5, 'pass@2': 0.75, 'pass@4': 1, 'maj@4': 0.5 });
    expect(metrics['avg@4/ci_low']).toBeLessThanOrEqual(0.5);
    expect(metrics['avg@4/ci_high']).toBeGreaterThanOrEqual(0.5);
  });

  test('only what was asked for; `correct` overrides the sign of the score', () => {
    const graded = [{ scores: [0.4, 0.6], votes: ['a', 'b'], correct: [false, true] }];
    expect(evaluationMetrics(graded, { seed: 1, metrics: ['pass@k'] })).toMatchObject({ 'pass@1': 0.5, 'pass@2': 1 });
    expect(Object.keys(evaluationMetrics(graded, { seed: 1, metrics: ['avg@n'] }))[0]).toBe('avg@2');
  });

  test('unequal numbers of responses are a fault', () => {
    const odd = [problems[0]!, { scores: [1], votes: ['1'] }];
    expect(() => evaluationMetrics(odd, { seed: 1, metrics: ['avg@n'] })).toThrow(/1 responses, the first one 4/);
  });
});
