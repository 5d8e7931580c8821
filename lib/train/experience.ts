// The second half before the update: advantages per group, old log-probs under the sampling weights, reference log-probs
// where a KL term needs them (archer.md 6, 4–5).
import { groupAdvantages } from '../algorithm/advantage.js';
import type { ResolvedConfig } from '../config/index.js';
import type { Stage } from '../metrics/progress.js';
import type { Weights } from '../native/policy.js';
import type { Stopwatch } from './stopwatch.js';
import type { Sample, ScoredGroup } from './types.js';
import { scoreSamples } from './update.js';

export interface ExperienceContext {
  config: ResolvedConfig;
  weights: Weights;
  /** The frozen initial model; undefined where every KL coefficient is 0. */
  reference: Weights | undefined;
  /** Old log-probs and entropies by a forward pass, not as sampled. */
  recomputeOldLogProbs: boolean;
  /** Tokens that one forward pass computes. */
  maxTokenLen: number;
  stopwatch: Stopwatch;
  signal: AbortSignal;
  progress: (stage: Stage, fraction?: number) => void;
}

export async function makeExperience(kept: ScoredGroup[], context: ExperienceContext): Promise<Sample[]> {
  const {
    config,
    weights,
    reference,
    recomputeOldLogProbs,
    maxTokenLen: maxTokens,
    stopwatch,
    signal,
    progress,
  } = context;
  const { temperature } = config.rollout;
  const report = (stage: Stage) => (done: number, total: number) => progress(stage, done / Math.max(total, 1));
  const samples = kept.flatMap((scored, group) => groupSamples(scored, group, config));
  if (recomputeOldLogProbs) {
    const scores = await stopwatch.time('old_log_prob', () =>
      scoreSamples(weights, samples, temperature, maxTokens, { signal, onProgress: report('old_log_prob') }),
    );
    samples.forEach((sample, i) => {
      sample.oldLogProbs = scores[i]?.logProbs ?? sample.oldLogProbs;
      sample.oldEntropies = scores[i]?.entropies ?? sample.oldEntropies;
    });
  }
  if (reference) {
    const scores = await stopwatch.time('ref', () =>
      scoreSamples(reference, samples, temperature, maxTokens, { signal, onProgress: report('ref') }),
    );
    samples.forEach((sample, i) => {
      if (scores[i]) sample.refLogProbs = scores[i].logProbs;
    });
  }
  return samples;
}

function groupSamples(scored: ScoredGroup, group: number, config: ResolvedConfig): Sample[] {
  const { norm_adv_by_std_in_grpo: byStd, truncated } = config.algorithm;
  const advantages = groupAdvantages(scored.rewards, { normByStd: byStd });
  return scored.responses.map((response, i) => ({
    group,
    prompt: scored.prompt,
    response,
    advantage: advantages[i] as number,
    inLoss: !(truncated === 'mask' && response.finish === 'length'),
    oldLogProbs: response.logProbs,
    oldEntropies: response.entropies,
  }));
}
