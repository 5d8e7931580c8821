// What algorithm.name and algorithm.fidelity stand for: plain values of other keys, between the defaults and the file.
// Sources: archer.md parts 2 to 7 (Archer, both forms) and 9 (the neighbours).

import type { AlgorithmName } from './schema-actor.js';

export type Preset = Readonly<Record<string, unknown>>;

const archerPaper: Preset = {
  'algorithm.filter_groups.enable': true,
  'algorithm.filter_groups.refill': false,
  'algorithm.norm_adv_by_std_in_grpo': true,
  'actor.entropy_scope': 'response',
  'actor.entropy_source': 'rollout',
  'actor.entropy_tie': 'ge',
  'actor.kl_normalizer': 'shared',
  'actor.loss_agg_mode': 'token-mean',
  'actor.clip_ratio_c': 0,
  'actor.ppo_epochs': 1,
  'actor.optim.decay_norms_and_biases': false,
  'actor.optim.lr_warmup_from_zero': false,
};

const archerReference: Preset = {
  ...archerPaper,
  'actor.entropy_source': 'current',
  'actor.entropy_tie': 'gt',
  'actor.kl_normalizer': 'per-class',
  'actor.loss_agg_mode': 'seq-mean-token-mean',
  'actor.clip_ratio_c': 10,
  'actor.ppo_epochs': 3,
  'actor.optim.decay_norms_and_biases': true,
  'actor.optim.lr_warmup_from_zero': true,
};

/** DeepSeekMath's form: no filter, sequence means, k3. β = 0.001 is verl's; DeepSeekMath itself took 0.04. */
const grpo: Preset = {
  'algorithm.filter_groups.enable': false,
  'algorithm.norm_adv_by_std_in_grpo': true,
  'actor.clip_ratio_low': 0.2,
  'actor.clip_ratio_high': 0.2,
  'actor.clip_ratio_c': 0,
  'actor.kl_loss_coef': 0.001,
  'actor.kl_loss_type': 'low_var_kl',
  'actor.loss_agg_mode': 'seq-mean-token-mean',
};

const dapo: Preset = {
  'algorithm.filter_groups.enable': true,
  'algorithm.filter_groups.refill': true,
  'algorithm.norm_adv_by_std_in_grpo': true,
  'actor.clip_ratio_low': 0.2,
  'actor.clip_ratio_high': 0.28,
  'actor.clip_ratio_c': 0,
  'actor.kl_loss_coef': 0,
  'actor.loss_agg_mode': 'token-mean',
};

const drGrpo: Preset = {
  'algorithm.filter_groups.enable': false,
  'algorithm.norm_adv_by_std_in_grpo': false,
  'actor.clip_ratio_low': 0.2,
  'actor.clip_ratio_high': 0.2,
  'actor.clip_ratio_c': 0,
  'actor.kl_loss_coef': 0,
  'actor.loss_agg_mode': 'seq-mean-token-sum-norm',
};

/** By the names shown on the reference page. */
export const presets: Readonly<Record<string, Preset>> = {
  archer: archerPaper,
  'archer (reference)': archerReference,
  grpo,
  dapo,
  dr_grpo: drGrpo,
};

/** The preset of an algorithm. Only Archer has two forms. */
export function presetOf(name: AlgorithmName, fidelity: 'paper' | 'reference'): Preset {
  return presets[name === 'archer' && fidelity === 'reference' ? 'archer (reference)' : name]!;
}
