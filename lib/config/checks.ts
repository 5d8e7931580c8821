// What one key alone cannot know: combinations that are wrong, and keys that do nothing where they stand.

import { isUniform } from './loss-options.js';
import { nearest } from './names.js';
import { allLinear, loraModules } from './schema-lora.js';
import { valueAt, type ResolvedConfig } from './schema.js';

export interface CrossCheck {
  config: ResolvedConfig;
  /** Whether a file or a flag gave this key. */
  isGiven: (key: string) => boolean;
  /** Where, ready for the end of a sentence. */
  place: (key: string) => string;
  problems: string[];
  warnings: string[];
}

const perClassKeys = [
  'actor.low_entropy_clip_ratio_low',
  'actor.low_entropy_clip_ratio_high',
  'actor.high_entropy_clip_ratio_low',
  'actor.high_entropy_clip_ratio_high',
  'actor.low_entropy_kl_loss_coef',
  'actor.high_entropy_kl_loss_coef',
];
const uniformKeys = ['actor.clip_ratio_low', 'actor.clip_ratio_high', 'actor.kl_loss_coef'];

function faults({ config, place, problems }: CrossCheck): void {
  const { data, rollout, algorithm, actor, lora } = config;
  const modules = [...loraModules, allLinear];
  for (const name of lora.target_modules.filter((one) => !modules.some((module) => module === one))) {
    const guess = nearest(name, modules);
    problems.push(
      `lora.target_modules: there is no module ${name}${guess === undefined ? '' : `: did you mean ${guess}?`} ` +
        `(${modules.join(', ')})${place('lora.target_modules')}.`,
    );
  }
  if (lora.target_modules.length === 0) {
    problems.push(
      `lora.target_modules is empty; name ${allLinear} or some of ${loraModules.join(', ')}${place('lora.target_modules')}.`,
    );
  }
  if (rollout.n < 2) {
    problems.push(
      `rollout.n = 1: with G = 1 a response has no group to be compared with, so every advantage is 0; take 2 or ` +
        `more${place('rollout.n')}.`,
    );
  }
  const weights = data.train_file_weights.length;
  if (weights > 0 && weights !== data.train_files.length) {
    problems.push(
      `data.train_file_weights has ${weights} numbers for ${data.train_files.length} files of data.train_files; give one ` +
        `for each${place('data.train_file_weights')}.`,
    );
  }
  if (data.pass_rates.above >= data.pass_rates.below) {
    problems.push(
      `data.pass_rates.above = ${data.pass_rates.above} and below = ${data.pass_rates.below} leave no pass rate between ` +
        `them${place('data.pass_rates.above') || place('data.pass_rates.below')}.`,
    );
  }
  if (rollout.temperature === 0) {
    problems.push(
      'rollout.temperature = 0: greedy sampling makes all responses of a group equal; it is for validation alone ' +
        `(val.temperature)${place('rollout.temperature')}.`,
    );
  }
  if (actor.ppo_mini_batch_size > data.train_batch_size) {
    problems.push(
      `actor.ppo_mini_batch_size = ${actor.ppo_mini_batch_size} is more than data.train_batch_size = ` +
        `${data.train_batch_size}; both count prompts${place('actor.ppo_mini_batch_size')}.`,
    );
  }
  if (actor.kl_normalizer === 'per-class' && actor.loss_agg_mode !== 'seq-mean-token-mean') {
    problems.push(
      'actor.kl_normalizer = per-class takes the mean over each sequence’s classes, so it needs ' +
        `actor.loss_agg_mode = seq-mean-token-mean, not ${actor.loss_agg_mode}` +
        `${place('actor.loss_agg_mode') || place('actor.kl_normalizer')}.`,
    );
  }
  const buffer = algorithm.overlong_buffer;
  if (buffer.enable && buffer.len > data.max_response_length) {
    problems.push(
      `algorithm.overlong_buffer.len = ${buffer.len} is more than data.max_response_length = ` +
        `${data.max_response_length}${place('algorithm.overlong_buffer.len')}.`,
    );
  }
}

/** Key → why it does nothing here. */
function withoutEffect(config: ResolvedConfig): Map<string, string> {
  const { algorithm, actor, reward, data, lora } = config;
  const idle = new Map<string, string>();
  const add = (keys: string[], why: string) => {
    for (const key of keys) idle.set(key, why);
  };
  if (isUniform(config)) {
    add(
      perClassKeys,
      `algorithm.name = ${algorithm.name} treats all tokens alike (actor.clip_ratio_*, actor.kl_loss_coef)`,
    );
    add(['algorithm.fidelity'], `algorithm.name = ${algorithm.name} has one form`);
  } else {
    add(uniformKeys, 'algorithm.name = archer has one per class (actor.low_entropy_*, actor.high_entropy_*)');
  }
  const coefficients = isUniform(config)
    ? [actor.kl_loss_coef]
    : [actor.low_entropy_kl_loss_coef, actor.high_entropy_kl_loss_coef];
  if (coefficients.every((beta) => beta === 0)) {
    add(['actor.kl_loss_type', 'actor.kl_normalizer'], 'every KL coefficient is 0');
  }
  if (actor.loss_agg_mode !== 'seq-mean-token-sum-norm') {
    add(['actor.loss_norm_length'], `actor.loss_agg_mode = ${actor.loss_agg_mode} has no constant length`);
  }
  if (!algorithm.filter_groups.enable)
    add(['algorithm.filter_groups.refill'], 'algorithm.filter_groups.enable is false');
  if (!algorithm.filter_groups.enable || !algorithm.filter_groups.refill) {
    add(['algorithm.filter_groups.max_num_gen_batches'], 'no groups are refilled');
  }
  if (!algorithm.overlong_buffer.enable) {
    add(
      ['algorithm.overlong_buffer.len', 'algorithm.overlong_buffer.penalty_factor'],
      'algorithm.overlong_buffer.enable is false',
    );
  }
  if (lora.rank === 0) add(['lora.alpha', 'lora.target_modules'], 'lora.rank is 0');
  if (reward.path !== null) add(['reward.name'], 'reward.path wins');
  if (!data.apply_chat_template) {
    add(['data.system_prompt', 'data.apply_chat_template_kwargs'], 'data.apply_chat_template is false');
  }
  if (data.pass_rates.file === null)
    add(['data.pass_rates.above', 'data.pass_rates.below'], 'there is no data.pass_rates.file');
  if (data.prompt_templates.default !== undefined) add(['data.instruction'], 'data.prompt_templates.default wins');
  return idle;
}

function doubts({ config, isGiven, place, warnings }: CrossCheck): void {
  for (const [key, why] of withoutEffect(config)) {
    const value = valueAt(config, key);
    // Switched off explicitly is what it is anyway.
    if (isGiven(key) && value !== false) warnings.push(`${key} has no effect: ${why}${place(key)}.`);
  }
  const { rollout } = config;
  const cuts = [
    rollout.top_p < 1 && `rollout.top_p = ${rollout.top_p}`,
    rollout.top_k > 0 && `rollout.top_k = ${rollout.top_k}`,
    rollout.min_p > 0 && `rollout.min_p = ${rollout.min_p}`,
  ].filter((cut) => cut !== false);
  if (cuts.length > 0) {
    warnings.push(
      `${cuts.join(', ')}: responses come from a truncated distribution, the loss has the log-probs of the full one.`,
    );
  }
}

export function crossCheck(check: CrossCheck): void {
  faults(check);
  doubts(check);
}
