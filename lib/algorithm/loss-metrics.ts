// What the updates of a step say about the policy, overall and by token class. docs/metrics.md has every formula. A
// mean over nothing (a class without tokens, a step without an update) is left out, never 0.

import type { ClassSums, LossSums } from '../native/types.js';
import { type RolloutDiff, rolloutDiffMetrics } from './rollout-diff.js';

function addClass(a: ClassSums, b: ClassSums): ClassSums {
  return {
    tokens: a.tokens + b.tokens,
    entropy: a.entropy + b.entropy,
    pgLoss: a.pgLoss + b.pgLoss,
    klLoss: a.klLoss + b.klLoss,
    ratio: a.ratio + b.ratio,
    clipped: a.clipped + b.clipped,
    clippedLower: a.clippedLower + b.clippedLower,
  };
}

/** The sums of several micro-batches, mini-batches or inner epochs as one; undefined for none. */
export function addSums(all: readonly LossSums[]): LossSums | undefined {
  const [first, ...rest] = all;
  return (
    first &&
    rest.reduce(
      (a, b) => ({
        knowledge: addClass(a.knowledge, b.knowledge),
        reasoning: addClass(a.reasoning, b.reasoning),
        ppoKl: a.ppoKl + b.ppoKl,
        thresholdSum: a.thresholdSum + b.thresholdSum,
        // Where no response has a threshold its minimum and maximum mean nothing.
        thresholdMin:
          a.thresholdCount === 0
            ? b.thresholdMin
            : b.thresholdCount === 0
              ? a.thresholdMin
              : Math.min(a.thresholdMin, b.thresholdMin),
        thresholdMax:
          a.thresholdCount === 0
            ? b.thresholdMax
            : b.thresholdCount === 0
              ? a.thresholdMax
              : Math.max(a.thresholdMax, b.thresholdMax),
        thresholdCount: a.thresholdCount + b.thresholdCount,
        emptyResponses: a.emptyResponses + b.emptyResponses,
      }),
      first,
    )
  );
}

/** One optimizer update: a mini-batch. */
export interface UpdateNumbers {
  pgLoss: number;
  /** Of its micro-batches. */
  sums: readonly LossSums[];
  gradNorm: number;
  skipped: boolean;
}

export interface StepUpdate {
  updates: readonly UpdateNumbers[];
  lr: number;
  /** Whether reference log-probs were there; without them no KL is reported. */
  hasReference: boolean;
  /** Tokens that changed class from one inner epoch to the next, over those compared. */
  classFlips: { flipped: number; compared: number };
  rolloutDiff: RolloutDiff;
}

function classMetrics(
  name: 'knowledge' | 'reasoning',
  sums: ClassSums,
  allTokens: number,
  hasReference: boolean,
): Record<string, number> {
  const metrics: Record<string, number> = { [`actor/${name}/token_share`]: sums.tokens / allTokens };
  if (sums.tokens === 0) return metrics;
  metrics[`actor/${name}/entropy`] = sums.entropy / sums.tokens;
  metrics[`actor/${name}/pg_clipfrac`] = sums.clipped / sums.tokens;
  metrics[`actor/${name}/pg_clipfrac_lower`] = sums.clippedLower / sums.tokens;
  if (hasReference) metrics[`actor/${name}/kl_loss`] = sums.klLoss / sums.tokens;
  metrics[`actor/${name}/ratio_mean`] = sums.ratio / sums.tokens;
  return metrics;
}

/** actor/* and training/rollout_*. Sums are pooled over the step's updates: every token counts alike. */
export function updateMetrics({
  updates,
  lr,
  hasReference,
  classFlips,
  rolloutDiff,
}: StepUpdate): Record<string, number> {
  const metrics: Record<string, number> = {};
  const sums = addSums(updates.flatMap((update) => update.sums));
  if (sums === undefined) return metrics;
  metrics['actor/pg_loss'] = updates.reduce((sum, update) => sum + update.pgLoss, 0) / updates.length;
  const { knowledge, reasoning } = sums;
  const all = addClass(knowledge, reasoning);
  if (all.tokens > 0) {
    if (hasReference) metrics['actor/kl_loss'] = all.klLoss / all.tokens;
    metrics['actor/entropy'] = all.entropy / all.tokens;
    metrics['actor/pg_clipfrac'] = all.clipped / all.tokens;
    metrics['actor/pg_clipfrac_lower'] = all.clippedLower / all.tokens;
    metrics['actor/ppo_kl'] = sums.ppoKl / all.tokens;
    Object.assign(metrics, classMetrics('knowledge', knowledge, all.tokens, hasReference));
    Object.assign(metrics, classMetrics('reasoning', reasoning, all.tokens, hasReference));
  }
  if (sums.thresholdCount > 0) {
    metrics['actor/entropy_threshold_mean'] = sums.thresholdSum / sums.thresholdCount;
    metrics['actor/entropy_threshold_min'] = sums.thresholdMin;
    metrics['actor/entropy_threshold_max'] = sums.thresholdMax;
  }
  if (classFlips.compared > 0) metrics['actor/class_flip_rate'] = classFlips.flipped / classFlips.compared;
  const norms = updates.map((update) => update.gradNorm).filter(Number.isFinite);
  if (norms.length > 0) metrics['actor/grad_norm'] = norms.reduce((sum, norm) => sum + norm, 0) / norms.length;
  metrics['actor/skipped_updates'] = updates.filter((update) => update.skipped).length;
  metrics['actor/lr'] = lr;
  return Object.assign(metrics, rolloutDiffMetrics(rolloutDiff));
}
