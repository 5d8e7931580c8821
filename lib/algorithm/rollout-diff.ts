// How far the log-probs as sampled are from those of the training engine, for the same tokens under the same weights, and
// whether `actor.old_log_prob: auto` may take the former for the latter. docs/metrics.md has the formulas.

/** Sums over tokens of |Δp| = |exp(training's log-prob) − exp(rollout's)| and of |Δ log-prob|. */
export interface RolloutDiff {
  tokens: number;
  probs: number;
  probsSquared: number;
  probsMax: number;
  logProbs: number;
}

export function noRolloutDiff(): RolloutDiff {
  return { tokens: 0, probs: 0, probsSquared: 0, probsMax: 0, logProbs: 0 };
}

/** Adds one response's tokens to `diff`. */
export function addRolloutDiff(diff: RolloutDiff, rollout: Float32Array, training: Float32Array): void {
  training.forEach((logProb, t) => {
    const sampled = rollout[t] as number;
    const probs = Math.abs(Math.exp(logProb) - Math.exp(sampled));
    diff.probs += probs;
    diff.probsSquared += probs * probs;
    diff.probsMax = Math.max(diff.probsMax, probs);
    diff.logProbs += Math.abs(logProb - sampled);
  });
  diff.tokens += training.length;
}

/** training/rollout_*: nothing for no tokens, no standard deviation for one. */
export function rolloutDiffMetrics({ tokens, probs, probsSquared, probsMax, logProbs }: RolloutDiff): Record<string, number> {
  if (tokens === 0) return {};
  const metrics: Record<string, number> = {
    'training/rollout_probs_diff_mean': probs / tokens,
    'training/rollout_probs_diff_max': probsMax,
    'training/rollout_log_probs_diff_mean': logProbs / tokens,
  };
  if (tokens > 1) {
    const squares = Math.max(0, probsSquared - (probs * probs) / tokens);
    metrics['training/rollout_probs_diff_std'] = Math.sqrt(squares / (tokens - 1));
  }
  return metrics;
}

/** The largest mean |Δ log-prob|, nats, at which the rollout's log-probs stand for the training engine's. */
export const rolloutDiffLimit = { float32: 1e-3, bfloat16: 2e-2 };

/** False where the mean exceeds the limit or is not a number; true where nothing was measured. */
export function rolloutAgrees(diff: RolloutDiff, dtype: keyof typeof rolloutDiffLimit): boolean {
  return diff.tokens === 0 || diff.logProbs / diff.tokens <= rolloutDiffLimit[dtype];
}
