// The steps between reward and loss: advantages, the group filter, penalties, packing, the learning rate.

import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { groupAdvantages } from '../../lib/algorithm/advantage.js';
import { groupKind, keepsGroup, refillDecision } from '../../lib/algorithm/group-filter.js';
import { overlongPenalty } from '../../lib/algorithm/overlong.js';
import { packGroups } from '../../lib/algorithm/packing.js';
import { repetitionRate } from '../../lib/algorithm/repetition.js';
import { learningRate, type Schedule } from '../../lib/algorithm/schedule.js';

describe('group advantages', () => {
  test('mean 0.25, std with N−1 0.5', () => {
    const advantages = groupAdvantages([1, 0, 0, 0]);
    expect(advantages[0]).toBeCloseTo(0.75 / (0.5 + 1e-6), 6);
    expect(advantages[1]).toBeCloseTo(-0.25 / (0.5 + 1e-6), 6);
    expect([...groupAdvantages([1, 0, 0, 0], { normByStd: false })]).toEqual([0.75, -0.25, -0.25, -0.25]);
  });

  test('equal rewards give exact zeros, also where their mean is rounded', () => {
    const third = 0.1;
    expect((third + third + third) / 3).not.toBe(third);
    expect([...groupAdvantages([third, third, third])]).toEqual([0, 0, 0]);
  });

  test('sum 0 and sample standard deviation 1', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: -50, max: 50 }), { minLength: 2, maxLength: 16 }), (rewards) => {
        fc.pre(new Set(rewards).size > 1);
        const advantages = [...groupAdvantages(rewards)];
        const sum = advantages.reduce((total, value) => total + value, 0);
        const squares = advantages.reduce((total, value) => total + value * value, 0);
        expect(Math.abs(sum)).toBeLessThan(1e-5);
        expect(Math.sqrt(squares / (rewards.length - 1))).toBeCloseTo(1, 4);
      }),
    );
  });

  test('G = 1 and a reward that is no number are errors', () => {
    expect(() => groupAdvantages([1])).toThrow(expect.objectContaining({ code: 'ARCHER_E_CONFIG' }));
    expect(() => groupAdvantages([1, Number.NaN])).toThrow(expect.objectContaining({ code: 'ARCHER_E_REWARD' }));
  });
});

describe('group filter', () => {
  test.each([
    [[0, 0, 0], 'solve_none'],
    [[-1, -1], 'solve_none'],
    [[1, 1], 'solve_all'],
    [[0.5, 0.5], 'equal'],
    [[0, 1, 0], 'mixed'],
  ] as const)('%p is %s', (rewards, kind) => {
    expect(groupKind(rewards)).toBe(kind);
    expect(keepsGroup(rewards)).toBe(kind === 'mixed');
  });

  test('refilling ends with a full batch, the last round, or the last prompt', () => {
    const state = { kept: 3, wanted: 4, rounds: 1, maxRounds: 10, left: 5 };
    expect(refillDecision(state)).toBe(true);
    expect(refillDecision({ ...state, kept: 4 })).toBe(false);
    expect(refillDecision({ ...state, rounds: 10 })).toBe(false);
    expect(refillDecision({ ...state, left: 0 })).toBe(false);
  });
});

test('the overlong penalty is 0, then a line down to −factor', () => {
  const buffer = { maxLength: 100, bufferLength: 20, factor: 0.5 };
  expect([1, 80, 90, 100].map((length) => overlongPenalty(length, buffer))).toEqual([0, 0, -0.25, -0.5]);
});

describe('packing', () => {
  const lengths = (max: number) => fc.integer({ min: 1, max });
  const groupsOf = (max: number) =>
    fc.array(fc.record({ prompt: lengths(max), responses: fc.array(lengths(max), { minLength: 1, maxLength: 12 }) }), {
      maxLength: 12,
    });
  type Groups = { prompt: number; responses: number[] }[];
  const responsesOf = (groups: Groups) =>
    groups.flatMap(({ prompt, responses }, group) => responses.map((response) => ({ group, prompt, response })));
  /** What a micro-batch computes: each prompt once. */
  const loadOf = (groups: Groups, bin: number[]) => {
    const members = bin.map((index) => responsesOf(groups)[index]!);
    const prompts = new Map(members.map(({ group, prompt }) => [group, prompt]));
    return [...prompts.values(), ...members.map(({ response }) => response)].reduce((sum, length) => sum + length, 0);
  };

  test('every response once, the budget kept, none shared with one that is too long', () => {
    fc.assert(
      fc.property(groupsOf(200), fc.integer({ min: 50, max: 800 }), (groups, budget) => {
        const bins = packGroups(groups, budget);
        expect(bins.flat().sort((a, b) => a - b)).toEqual(responsesOf(groups).map((_, index) => index));
        for (const bin of bins) {
          expect(bin.length > 0 && (loadOf(groups, bin) <= budget || bin.length === 1)).toBe(true);
          expect(bin).toEqual([...bin].sort((a, b) => a - b));
        }
      }),
    );
  });

  test('a group that fits is not split, and any two micro-batches hold more than one budget together', () => {
    fc.assert(
      fc.property(groupsOf(30), (groups) => {
        const bins = packGroups(groups, 400);
        const total = groups.flatMap(({ prompt, responses }) => [prompt, ...responses]).reduce((a, b) => a + b, 0);
        expect(bins.reduce((sum, bin) => sum + loadOf(groups, bin), 0)).toBe(total);
        expect(bins.length).toBeLessThanOrEqual(Math.max(Math.ceil(total / 200), 1));
      }),
    );
  });

  test('evens out where the budget allows it', () => {
    const alone = (responses: number[]) => responses.map((response) => ({ prompt: 1, responses: [response - 1] }));
    expect(packGroups(alone(new Array(10).fill(10)), 80).map((bin) => bin.length)).toEqual([5, 5]);
    expect(packGroups([], 10)).toEqual([]);
    expect(packGroups(alone([50, 5, 5]), 10)).toEqual([[0], [1, 2]]);
    // 20 + 6 · 10 > 60: two parts of 20 + 3 · 10
    expect(packGroups([{ prompt: 20, responses: new Array(6).fill(10) }], 60).map((bin) => bin.length)).toEqual([3, 3]);
  });
});

describe('learning rate', () => {
  const constant = {
    lr: 1,
    warmupSteps: 4,
    warmupFromZero: false,
    kind: 'constant',
    totalSteps: 10,
  } as const;
  const rates = (schedule: Schedule) => [0, 1, 3, 4, 7, 9, 10].map((step) => learningRate(schedule, step));

  test('warm-up (k+1)/W, then constant; the reference starts at 0', () => {
    expect(rates(constant)).toEqual([0.25, 0.5, 1, 1, 1, 1, 1]);
    expect(rates({ ...constant, warmupFromZero: true })).toEqual([0, 0.25, 0.75, 1, 1, 1, 1]);
    expect(learningRate({ ...constant, warmupSteps: 0 }, 0)).toBe(1);
  });

  test('linear and cosine reach 0 after the last step, and never before', () => {
    const linear = rates({ ...constant, kind: 'linear' });
    expect(linear.slice(3)).toEqual([1, 0.5, 1 - 5 / 6, 0]);
    const cosine = rates({ ...constant, kind: 'cosine' });
    expect(cosine[3]).toBe(1);
    expect(cosine[4]).toBeCloseTo(0.5, 12);
    expect(cosine[5]).toBeGreaterThan(0.05);
    expect(cosine[6]).toBeCloseTo(0, 12);
    expect(learningRate({ ...constant, kind: 'linear', totalSteps: 4 }, 4)).toBe(1);
  });
});

describe('repetition rate', () => {
  const words = (count: number) => Array.from({ length: count }, (_, index) => `w${index}`).join(' ');

  test('0 for short or new text, high for a loop', () => {
    expect(repetitionRate('a a a a')).toBe(0);
    expect(repetitionRate(words(100))).toBe(0);
    // 40 equal words have 21 20-grams, all alike.
    expect(repetitionRate('a '.repeat(40))).toBeCloseTo(20 / 21, 12);
  });

  test('case and white space do not matter; the second copy counts', () => {
    const text = words(20);
    // 40 words, 21 20-grams: the last equals the first.
    expect(repetitionRate(`${text}\n\n  ${text.toUpperCase()}`)).toBeCloseTo(1 / 21, 12);
    expect(repetitionRate('x y x y', 2)).toBeCloseTo(1 / 3, 12);
  });
});
