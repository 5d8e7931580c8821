// The configuration's words to the options of the native loss (lib/native/types.ts).

import type { NativeLossOptions } from '../native/types.js';
import type { ResolvedConfig } from './schema.js';

/** True for the algorithms that clip and weigh all tokens alike. */
export function isUniform(config: ResolvedConfig): boolean {
  return config.algorithm.name !== 'archer';
}

/**
 * The loss of a training step. The uniform algorithms give both classes the same clip and KL coefficient; their classes
 * still split the metrics. chunkTokens is left to the engine (0).
 */
export function lossOptions(config: ResolvedConfig): NativeLossOptions {
  const { actor } = config;
  const uniform = isUniform(config);
  return {
    tokenEntropyQuantile: actor.token_entropy_quantile,
    entropyTie: actor.entropy_tie,
    entropySource: actor.entropy_source,
    entropyScope: actor.entropy_scope,
    knowledgeClipLow: uniform ? actor.clip_ratio_low : actor.low_entropy_clip_ratio_low,
    knowledgeClipHigh: uniform ? actor.clip_ratio_high : actor.low_entropy_clip_ratio_high,
    reasoningClipLow: uniform ? actor.clip_ratio_low : actor.high_entropy_clip_ratio_low,
    reasoningClipHigh: uniform ? actor.clip_ratio_high : actor.high_entropy_clip_ratio_high,
    clipRatioC: actor.clip_ratio_c,
    knowledgeKlCoef: uniform ? actor.kl_loss_coef : actor.low_entropy_kl_loss_coef,
    reasoningKlCoef: uniform ? actor.kl_loss_coef : actor.high_entropy_kl_loss_coef,
    klLossType: actor.kl_loss_type === 'low_var_kl' ? 'k3' : actor.kl_loss_type,
    lossAggMode: actor.loss_agg_mode,
    klNormalizer: actor.kl_normalizer,
    lossNormLength: actor.loss_norm_length === 0 ? config.data.max_response_length : actor.loss_norm_length,
    entropyCoeff: actor.entropy_coeff,
    temperature: config.rollout.temperature,
    chunkTokens: 0,
  };
}

/** True where the reference model's log-probs are needed. */
export function needsReference(config: ResolvedConfig): boolean {
  const { knowledgeKlCoef, reasoningKlCoef } = lossOptions(config);
  return knowledgeKlCoef !== 0 || reasoningKlCoef !== 0;
}
