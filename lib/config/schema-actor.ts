// The objective and the optimizer: what archer.md calls the loss, in verl's key names. See schema.ts.

import { bool, int, num, numOrOff, oneOf, pair, type Alias } from './option.js';

export const algorithmNames = ['archer', 'grpo', 'dapo', 'dr_grpo'] as const;
export type AlgorithmName = (typeof algorithmNames)[number];

/** A rename by value, for aliases whose words differ. */
function renames(table: Record<string, unknown>): (value: unknown) => unknown {
  return (value) => (Object.hasOwn(table, String(value)) ? table[String(value)] : value);
}

export const algorithmOptions = {
  name: oneOf('archer', algorithmNames, 'A preset of the keys below; every one of them can still be set.'),
  fidelity: oneOf('paper', ['paper', 'reference'], 'Archer as the paper says it, or as the authors’ code computes it.'),
  filter_groups: {
    enable: bool(true, 'Drop groups whose rewards are all equal.'),
    refill: bool(false, 'Sample further prompts until the batch is full (DAPO).'),
    max_num_gen_batches: int(10, { min: 1 }, 'Sampling rounds of one step when refilling.'),
  },
  truncated: oneOf('keep', ['keep', 'mask'], 'Responses cut at the limit: stay in the loss, or leave it.', {
    aliases: [
      {
        word: 'mask_truncated_completions',
        note: 'true is mask, false is keep',
        convert: renames({ true: 'mask', false: 'keep' }),
      },
    ],
  }),
  norm_adv_by_std_in_grpo: bool(true, 'Divide advantages by the group’s standard deviation.', {
    aliases: [
      {
        word: 'scale_rewards',
        note: 'group and true are true, none and false are false',
        convert: renames({ group: true, none: false }),
      },
    ],
  }),
  overlong_buffer: {
    enable: bool(false, 'DAPO’s soft penalty for long responses.'),
    len: int(4096, { min: 1 }, 'Tokens before data.max_response_length in which the penalty grows from 0.'),
    penalty_factor: num(1, { min: 0 }, 'The penalty at the limit, in units of reward.'),
  },
};

const topEntropy: Alias = {
  word: 'top_entropy_quantile',
  note: '1 − ρ',
  convert: (value) => (typeof value === 'number' ? Number((1 - value).toPrecision(12)) : value),
};

export const lossOptionKeys = {
  token_entropy_quantile: num(0.8, { min: 0, max: 1 }, 'Entropies above this quantile make a reasoning token.', {
    symbol: 'ρ',
    aliases: [topEntropy],
  }),
  entropy_scope: oneOf(
    'response',
    ['response', 'group', 'batch'],
    'The set of tokens over which the quantile is taken.',
  ),
  entropy_source: oneOf(
    'rollout',
    ['rollout', 'current'],
    'Entropies of the sampling policy, or of the one being trained.',
    {
      symbol: 'H',
    },
  ),
  entropy_tie: oneOf('ge', ['ge', 'gt'], 'A reasoning token has H ≥ q, or H > q.'),
  low_entropy_clip_ratio_low: num(0.2, { min: 0, max: 1 }, 'Lower clip of knowledge tokens.', { symbol: 'ε_k' }),
  low_entropy_clip_ratio_high: num(0.2, { min: 0 }, 'Upper clip of knowledge tokens.', { symbol: 'ε_k' }),
  high_entropy_clip_ratio_low: num(0.5, { min: 0, max: 1 }, 'Lower clip of reasoning tokens.', { symbol: 'ε_r' }),
  high_entropy_clip_ratio_high: num(0.5, { min: 0 }, 'Upper clip of reasoning tokens.', { symbol: 'ε_r' }),
  low_entropy_kl_loss_coef: num(0.001, { min: 0 }, 'Weight of the KL loss on knowledge tokens.', { symbol: 'β_k' }),
  high_entropy_kl_loss_coef: num(0, { min: 0 }, 'Weight of the KL loss on reasoning tokens.', { symbol: 'β_r' }),
  clip_ratio_low: num(0.2, { min: 0, max: 1 }, 'Lower clip of the uniform algorithms.', {
    symbol: 'ε_low',
    aliases: [
      { word: 'epsilon', note: 'the upper clip too, unless given', also: ['actor.clip_ratio_high'] },
      { word: 'clip_ratio', note: 'verl; the upper clip too, unless given', also: ['actor.clip_ratio_high'] },
    ],
  }),
  clip_ratio_high: num(0.2, { min: 0 }, 'Upper clip of the uniform algorithms.', {
    symbol: 'ε_high',
    aliases: ['epsilon_high'],
  }),
  clip_ratio_c: numOrOff(0, { above: 1 }, 'Dual clip: bound of the ratio where the advantage is negative; 0 is off.', {
    symbol: 'c',
    aliases: ['delta'],
  }),
  kl_loss_coef: num(0, { min: 0 }, 'Weight of the KL loss in the uniform algorithms.', {
    symbol: 'β',
    aliases: ['beta'],
  }),
  kl_loss_type: oneOf(
    'low_var_kl',
    ['k1', 'k2', 'low_var_kl', 'k3', 'abs', 'k3+'],
    'KL estimator against the initial model.',
    {
      defaultText: '`low_var_kl`, which is k3; k3+ has the gradient of k2',
    },
  ),
  kl_normalizer: oneOf(
    'shared',
    ['shared', 'per-class'],
    'KL over the denominator of the policy loss, or over the tokens of its class.',
  ),
  loss_agg_mode: oneOf(
    'token-mean',
    ['token-mean', 'seq-mean-token-mean', 'seq-mean-token-sum', 'seq-mean-token-sum-norm', 'token-sum'],
    'How token losses become one number; denominators are always those of the whole mini-batch.',
    {
      aliases: [
        {
          word: 'loss_type',
          note: 'grpo, bnpo, dapo, dr_grpo',
          convert: renames({
            grpo: 'seq-mean-token-mean',
            bnpo: 'token-mean',
            dapo: 'token-mean',
            dr_grpo: 'seq-mean-token-sum-norm',
          }),
        },
      ],
    },
  ),
  loss_norm_length: int(
    0,
    { min: 0 },
    'The constant length of seq-mean-token-sum-norm, in tokens; 0: data.max_response_length.',
  ),
  entropy_coeff: num(0, {}, 'Weight of the entropy bonus (the loss gets −α H).', { symbol: 'α' }),
};

export const actorOptions = {
  ...lossOptionKeys,
  old_log_prob: oneOf(
    'recompute',
    ['recompute', 'rollout', 'auto'],
    'Old log-probs by a forward pass of the training engine, or as sampled; auto: as sampled while the two agree.',
  ),
  ppo_epochs: int(1, { min: 1 }, 'Inner epochs over one step’s responses.', { aliases: ['num_iterations'] }),
  ppo_mini_batch_size: int(32, { min: 1 }, 'Prompts per update.', {
    defaultText: '32, or data.train_batch_size where that is smaller',
  }),
  ppo_max_token_len: int(
    0,
    { min: 0 },
    'Tokens in one forward and backward, where a prompt counts once for all its responses; a longer sequence goes alone. Replaces micro-batch sizes. 0: the memory plan decides.',
    { defaultText: '0: 4096, or fewer where memory is short' },
  ),
  grad_clip: num(1, { above: 0 }, 'Bound of the global gradient norm.', { aliases: ['max_grad_norm'] }),
  optim: {
    lr: num(1e-6, { min: 0 }, 'Learning rate of AdamW after the warm-up.', { aliases: ['learning_rate'] }),
    betas: pair([0.9, 0.999], { min: 0, below: 1 }, 'Decay of AdamW’s two moments.'),
    eps: num(1e-8, { above: 0 }, 'AdamW’s ε.', { aliases: ['adam_epsilon'] }),
    weight_decay: num(0.1, { min: 0 }, 'Decoupled weight decay.', { aliases: ['weight_decay'] }),
    decay_norms_and_biases: bool(false, 'Weight decay on norms and biases too, as the reference code does.'),
    lr_warmup_steps: int(10, { min: 0 }, 'Training steps (not updates) of linear warm-up.', {
      aliases: ['warmup_steps'],
    }),
    lr_warmup_from_zero: bool(false, 'Step k runs at lr·k/W as the reference’s scheduler does, not at lr·(k+1)/W.'),
    lr_scheduler: oneOf(
      'constant',
      ['constant', 'linear', 'cosine'],
      'After the warm-up: constant, or falling to 0 at the end of the run.',
      {
        aliases: [
          {
            word: 'lr_scheduler_type',
            note: 'constant_with_warmup is constant',
            convert: renames({ constant_with_warmup: 'constant' }),
          },
        ],
      },
    ),
  },
};
