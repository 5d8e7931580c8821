// The numbers of a step: sums over micro-batches to verl's names.

import { describe, expect, test } from '@jest/globals';
import { readFileSync } from 'node:fs';
import { addSums, updateMetrics } from '../../lib/algorithm/loss-metrics.js';
import { lengthMetrics, rewardMetrics, spread } from '../../lib/algorithm/metrics.js';
import { addRolloutDiff, noRolloutDiff, rolloutAgrees } from '../../lib/algorithm/rollout-diff.js';
import type { ClassSums, LossSums } from '../../lib/native/types.js';

const none: ClassSums = { tokens: 0, entropy: 0, pgLoss: 0, klLoss: 0, ratio: 0, clipped: 0, clippedLower: 0 };
const first: LossSums = {
  knowledge: { tokens: 8, entropy: 2, pgLoss: 1, klLoss: 0.8, ratio: 8.4, clipped: 2, clippedLower: 1 },
  reasoning: { tokens: 2, entropy: 3, pgLoss: 1, klLoss: 0.2, ratio: 1.8, clipped: 1, clippedLower: 0 },
  ppoKl: 0.5,
  thresholdSum: 3,
  thresholdMin: 1,
  thresholdMax: 2,
  thresholdCount: 2,
  emptyResponses: 0,
};
const second: LossSums = {
  ...first,
  knowledge: { ...first.knowledge, tokens: 32 },
  reasoning: none,
  ppoKl: 0.5,
  thresholdMin: 0.5,
};
const empty: LossSums = {
  ...first,
  knowledge: none,
  reasoning: none,
  ppoKl: 0,
  thresholdSum: 0,
  thresholdMin: Infinity,
  thresholdMax: -Infinity,
  thresholdCount: 0,
  emptyResponses: 1,
};

const quiet = {
  lr: 1e-6,
  hasReference: true,
  classFlips: { flipped: 0, compared: 0 },
  rolloutDiff: noRolloutDiff(),
};
const update = (sums: LossSums[], gradNorm = 1) => ({
  pgLoss: 0.25,
  sums,
  gradNorm,
  skipped: !Number.isFinite(gradNorm),
});

describe('updateMetrics', () => {
  test('every token counts alike, over micro-batches and updates', () => {
    const metrics = updateMetrics({ ...quiet, updates: [update([first], 2), update([second, empty], 4)] });
    expect(metrics).toMatchObject({
      'actor/pg_loss': 0.25,
      'actor/kl_loss': (0.8 + 0.2 + 0.8) / 42,
      'actor/entropy': 7 / 42,
      'actor/pg_clipfrac': 5 / 42,
      'actor/pg_clipfrac_lower': 2 / 42,
      'actor/ppo_kl': 1 / 42,
      'actor/grad_norm': 3,
      'actor/lr': 1e-6,
      'actor/skipped_updates': 0,
      'actor/knowledge/token_share': 40 / 42,
      'actor/knowledge/pg_clipfrac': 4 / 40,
      'actor/reasoning/entropy': 1.5,
      'actor/reasoning/ratio_mean': 0.9,
      'actor/entropy_threshold_mean': 1.5,
      'actor/entropy_threshold_min': 0.5,
      'actor/entropy_threshold_max': 2,
    });
  });

  test('what there is nothing of is left out: class, reference, epochs, update', () => {
    const alone = updateMetrics({ ...quiet, hasReference: false, updates: [update([second])] });
    expect(alone['actor/reasoning/token_share']).toBe(0);
    expect(
      Object.keys(alone).filter((name) => /reasoning\/(?!token_share)|kl_loss|flip|probs_diff/.test(name)),
    ).toEqual([]);
    expect(updateMetrics({ ...quiet, updates: [] })).toEqual({});
    const masked = updateMetrics({ ...quiet, updates: [update([empty])] });
    expect(masked).toEqual({
      'actor/pg_loss': 0.25,
      'actor/grad_norm': 1,
      'actor/lr': 1e-6,
      'actor/skipped_updates': 0,
    });
  });

  test('a non-finite norm is counted, not averaged', () => {
    const metrics = updateMetrics({ ...quiet, updates: [update([first], 2), update([first], Number.NaN)] });
    expect([metrics['actor/grad_norm'], metrics['actor/skipped_updates']]).toEqual([2, 1]);
    expect(updateMetrics({ ...quiet, updates: [update([first], Infinity)] })).not.toHaveProperty(['actor/grad_norm']);
  });

  test('flips', () => {
    const metrics = updateMetrics({ ...quiet, updates: [update([first])], classFlips: { flipped: 3, compared: 12 } });
    expect(metrics['actor/class_flip_rate']).toBe(0.25);
  });

  test('the difference between the engines, over responses', () => {
    const rolloutDiff = noRolloutDiff();
    const logs = (...probs: number[]) => Float32Array.from(probs, Math.log);
    addRolloutDiff(rolloutDiff, logs(0.5, 0.25), logs(0.5, 0.5));
    addRolloutDiff(rolloutDiff, logs(0.8), logs(0.7));
    const metrics = updateMetrics({ ...quiet, updates: [update([first])], rolloutDiff });
    const mean = 0.35 / 3;
    expect(metrics['training/rollout_probs_diff_mean']).toBeCloseTo(mean, 6);
    expect(metrics['training/rollout_probs_diff_max']).toBeCloseTo(0.25, 6);
    const squares = [0, 0.25, 0.1].reduce((sum, one) => sum + (one - mean) ** 2, 0);
    expect(metrics['training/rollout_probs_diff_std']).toBeCloseTo(Math.sqrt(squares / 2), 6);
    expect(metrics['training/rollout_log_probs_diff_mean']).toBeCloseTo((Math.log(2) + Math.log(8 / 7)) / 3, 6);
  });

  test('adding sums does not change them', () => {
    const before = structuredClone(first);
    expect(addSums([empty, first])?.thresholdMin).toBe(1);
    expect(addSums([first, empty])?.emptyResponses).toBe(1);
    expect(addSums([])).toBeUndefined();
    expect(first).toEqual(before);
  });
});

test('auto trusts log-probs up to a mean difference that the dtype sets', () => {
  const apart = (logProbs: number) => ({ ...noRolloutDiff(), tokens: 10, logProbs });
  expect([9e-3, 11e-3, Number.NaN].map((sum) => rolloutAgrees(apart(sum), 'float32'))).toEqual([true, false, false]);
  expect([0.19, 0.21].map((sum) => rolloutAgrees(apart(sum), 'bfloat16'))).toEqual([true, false]);
  expect(rolloutAgrees(noRolloutDiff(), 'float32')).toBe(true);
});

test('rewards: scores, counts of groups and outcomes', () => {
  const metrics = rewardMetrics([
    { kind: 'mixed', scores: [1, 0], rewards: [0.5, 0], outcomes: ['ok', 'timeout'] },
    { kind: 'solve_none', scores: [0, 0], rewards: [0, 0], outcomes: ['wrong', 'parse_error'] },
  ]);
  expect(metrics).toEqual({
    'critic/score/mean': 0.25,
    'critic/score/max': 1,
    'critic/score/min': 0,
    'critic/rewards/mean': 0.125,
    'critic/rewards/max': 0.5,
    'critic/rewards/min': 0,
    'batch/solve_none': 1,
    'batch/solve_all': 0,
    'reward/ok': 1,
    'reward/wrong': 1,
    'reward/parse_error': 1,
    'reward/timeout': 1,
    'reward/crash': 0,
  });
});

test('lengths, truncation, repetition split by right and wrong', () => {
  const loop = 'a '.repeat(40);
  const metrics = lengthMetrics([
    { promptLength: 5, length: 10, text: 'fine', truncated: false, right: true },
    { promptLength: 7, length: 30, text: loop, truncated: true, right: false },
  ]);
  expect(metrics).toMatchObject({
    'response_length/mean': 20,
    'response_length/max': 30,
    'response_length/min': 10,
    'response_length/clip_ratio': 0.5,
    'prompt_length/mean': 6,
    'batch/truncated': 1,
    'response/repetition_rate_right': 0,
  });
  expect(metrics['response/repetition_rate_wrong']).toBeCloseTo(20 / 21, 12);
  expect(metrics['response/repetition_rate']).toBeCloseTo(10 / 21, 12);
  expect(lengthMetrics([])).toEqual({ 'batch/truncated': 0 });
  expect(spread('x', [])).toEqual({});
});

test('docs/metrics.md has every name', () => {
  const documented = new Set<string>();
  for (const [, name] of readFileSync('docs/metrics.md', 'utf8').matchAll(/`([a-z_]+\/[^` ]*)`/g)) {
    const expand = (text: string): string[] => {
      const braces = /^(.*?)\{([^}]*)\}(.*)$/.exec(text);
      return braces ? braces[2]!.split(',').flatMap((one) => expand(braces[1]! + one + braces[3]!)) : [text];
    };
    for (const one of expand(name!)) documented.add(one);
  }
  const names = Object.keys({
    ...updateMetrics({
      ...quiet,
      updates: [update([first])],
      classFlips: { flipped: 0, compared: 1 },
      rolloutDiff: { ...noRolloutDiff(), tokens: 2 },
    }),
    ...rewardMetrics([{ kind: 'mixed', scores: [1, 0], rewards: [1, 0], outcomes: ['ok', 'wrong'] }]),
    ...lengthMetrics([true, false].map((right) => ({ promptLength: 1, length: 1, text: '', truncated: false, right }))),
  });
  expect(names.length).toBeGreaterThan(40);
  expect(names.filter((name) => !documented.has(name))).toEqual([]);
});
