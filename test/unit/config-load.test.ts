// What a user meets when a configuration is loaded: precedence, places, aliases, and one sentence per fault.

import { describe as group, expect, test } from '@jest/globals';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { configHash, describe, loadConfig, options, presets } from '../../lib/config/index.js';
import { aliases, editDistance, nearest } from '../../lib/config/names.js';

function fault(load: () => unknown): string {
  try {
    load();
  } catch (error) {
    expect((error as { code?: string }).code).toBe('ARCHER_E_CONFIG');
    return (error as Error).message;
  }
  throw new Error('the configuration was accepted');
}
const yaml = (text: string, sets: string[] = []) => loadConfig({ text, file: 'run.yaml', sets });

group('values and where they come from', () => {
  test('the defaults are those of the documents', () => {
    const { config, warnings } = loadConfig();
    expect(warnings).toEqual([]);
    expect(config.model).toEqual({ path: 'bundled', dtype: 'float32', gradient_checkpointing: 'auto' });
    expect(config.data).toMatchObject({ train_batch_size: 64, max_prompt_length: 2048, max_response_length: 8192 });
    expect(config.rollout).toMatchObject({ n: 16, temperature: 1, top_p: 1, top_k: -1, min_p: 0 });
    expect(config.actor).toMatchObject({
      token_entropy_quantile: 0.8,
      low_entropy_clip_ratio_low: 0.2,
      high_entropy_clip_ratio_high: 0.5,
      low_entropy_kl_loss_coef: 0.001,
      high_entropy_kl_loss_coef: 0,
      old_log_prob: 'recompute',
      ppo_mini_batch_size: 32,
      grad_clip: 1,
    });
    expect(config.actor.optim).toMatchObject({ lr: 1e-6, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.1 });
    expect(config.val).toMatchObject({ n: 4, temperature: 0.8, top_p: 1 });
  });

  test('defaults < preset < file < flag', () => {
    const { config, sources } = yaml('algorithm: {fidelity: reference}\nactor:\n  ppo_epochs: 2\n  grad_clip: 0.5\n', [
      'actor.grad_clip=0.25',
    ]);
    const seen = ['actor.optim.lr', 'actor.clip_ratio_c', 'actor.ppo_epochs', 'actor.grad_clip'];
    expect(seen.map((key) => sources.get(key))).toEqual(['default', 'preset', 'file', 'flag']);
    expect(config.actor).toMatchObject({ clip_ratio_c: 10, ppo_epochs: 2, grad_clip: 0.25 });
  });

  test('a flag can choose the preset, and the last of two flags counts', () => {
    const { config } = loadConfig({ sets: ['algorithm.name=grpo', 'algorithm.name=dapo'] });
    expect(config.actor).toMatchObject({ clip_ratio_high: 0.28, kl_loss_coef: 0, loss_agg_mode: 'token-mean' });
    expect(config.algorithm.filter_groups.refill).toBe(true);
    expect(config.trainer.experiment_name).toBe('dapo');
  });

  test('every preset names known keys with allowed values, and loads without a warning', () => {
    for (const [name, preset] of Object.entries(presets)) {
      for (const [key, value] of Object.entries(preset)) {
        expect([name, key, options.get(key)?.type.safeParse(value).success]).toEqual([name, key, true]);
      }
    }
    for (const name of ['archer', 'grpo', 'dapo', 'dr_grpo'] as const) {
      expect(loadConfig({ object: { algorithm: { name } } }).warnings).toEqual([]);
    }
    const reference = { algorithm: { fidelity: 'reference' as const } };
    expect(loadConfig({ object: reference }).warnings).toEqual([]);
  });

  test('flags are YAML: lists, maps, null, on and off', () => {
    const { config } = loadConfig({
      sets: [
        'rollout.stop=["</s>", "a=b"]',
        'actor.optim={lr: 3e-4, betas: [0.9, 0.95]}',
        'trainer.max_ckpt_to_keep=null',
        'reward.self_test=off',
        'data.train_files=a.jsonl',
        'data.val_files=[]',
      ],
    });
    expect(config.rollout.stop).toEqual(['</s>', 'a=b']);
    expect(config.actor.optim).toMatchObject({ lr: 3e-4, betas: [0.9, 0.95] });
    expect(config.trainer.max_ckpt_to_keep).toBeNull();
    expect(config.reward.self_test).toBe(false);
    expect(config.data).toMatchObject({ train_files: ['a.jsonl'], val_files: [] });
  });

  test('YAML anchors, dotted keys, empty sections and empty files are fine', () => {
    const { config } = yaml('data: &d {train_batch_size: 8}\nactor.optim.lr: 1e-4\nval:\n');
    expect([config.data.train_batch_size, config.actor.optim.lr]).toEqual([8, 1e-4]);
    expect(yaml('').config).toEqual(loadConfig().config);
  });

  test('a smaller batch takes the mini-batch along, and one’s own data switches the bundled validation off', () => {
    expect(loadConfig({ object: { data: { train_batch_size: 8 } } }).config.actor.ppo_mini_batch_size).toBe(8);
    const own = loadConfig({ object: { data: { train_files: 'mine.jsonl' } } });
    expect(own.config.data.val_files).toEqual([]);
    expect(own.warnings.join()).toMatch(/no validation/);
  });

  test('a file from disk; a missing one and a folder are named', () => {
    const folder = mkdtempSync(join(tmpdir(), 'archer-config-'));
    const file = join(folder, 'run.yaml');
    writeFileSync(file, 'rollout: {n: 4}\n');
    expect(loadConfig({ file }).config.rollout.n).toBe(4);
    expect(fault(() => loadConfig({ file: join(folder, 'none.yaml') }))).toMatch(/none\.yaml: there is no such file/);
    expect(fault(() => loadConfig({ file: folder }))).toMatch(/it is a folder/);
    expect(fault(() => loadConfig({ text: '', object: {} }))).toMatch(/not both/);
  });
});

group('aliases', () => {
  test('TRL’s words, at the top or in the section', () => {
    const { config, sources } = yaml(
      [
        'num_generations: 8',
        'beta: 0.04',
        'learning_rate: 2e-5',
        'max_completion_length: 99',
        'actor: {num_iterations: 2, top_entropy_quantile: 0.2, loss_type: dr_grpo}',
        'mask_truncated_completions: true',
        'scale_rewards: none',
        'algorithm: {name: grpo}',
      ].join('\n'),
    );
    expect(config.rollout.n).toBe(8);
    expect(config.actor).toMatchObject({
      kl_loss_coef: 0.04,
      ppo_epochs: 2,
      token_entropy_quantile: 0.8,
      loss_agg_mode: 'seq-mean-token-sum-norm',
    });
    expect(config.actor.optim.lr).toBe(2e-5);
    expect(config.data.max_response_length).toBe(99);
    expect(config.algorithm).toMatchObject({ truncated: 'mask', norm_adv_by_std_in_grpo: false });
    expect(sources.get('rollout.n')).toBe('file');
  });

  test('epsilon sets both sides unless the upper one is given', () => {
    const both = loadConfig({ object: { algorithm: { name: 'dapo' }, epsilon: 0.1 } }).config.actor;
    expect([both.clip_ratio_low, both.clip_ratio_high]).toEqual([0.1, 0.1]);
    const own = loadConfig({ object: { algorithm: { name: 'dapo' }, epsilon: 0.1, epsilon_high: 0.3 } }).config.actor;
    expect([own.clip_ratio_low, own.clip_ratio_high]).toEqual([0.1, 0.3]);
  });

  test('alias and key together are an error; a flag may override a file’s alias', () => {
    expect(fault(() => yaml('num_generations: 8\nrollout: {n: 4}'))).toMatch(/same key, rollout\.n.*run\.yaml:2:11/);
    expect(yaml('num_generations: 8', ['rollout.n=4']).config.rollout.n).toBe(4);
  });

  test('k3 is low_var_kl', () => {
    expect(loadConfig({ object: { actor: { kl_loss_type: 'k3' } } }).config.actor.kl_loss_type).toBe('low_var_kl');
  });

  test('no alias hides a key or another alias', () => {
    for (const path of aliases.keys()) expect(options.has(path)).toBe(false);
    const words = [...options.values()].flatMap((option) => option.aliases.map(({ word }) => word));
    expect(new Set(words).size).toBe(words.length);
  });
});

group('faults', () => {
  test.each([
    ['actr: {}', /unknown key actr: did you mean actor\? \(run\.yaml:1:1\)/],
    ['actor:\n  ppo_epoch: 1', /unknown key actor\.ppo_epoch: did you mean actor\.ppo_epochs\? \(run\.yaml:2:3\)/],
    ['lr: 1', /unknown key lr: did you mean actor\.optim\.lr\?/],
    ['actor_rollout_ref: {actor: {}}', /leave verl’s level actor_rollout_ref out/],
    ['qwertyuiop: 1', /unknown key qwertyuiop \(run\.yaml:1:1\)/],
    ['rollout: {n: 1_000}', /rollout\.n takes integer ≥ 1, not "1_000"; "1_000" is text in YAML: write 1000/],
    ['rollout: {n: "8"}', /write 8 without quotes/],
    ['rollout: {n: 2.5}', /rollout\.n takes integer ≥ 1, not 2\.5 \(run\.yaml:1:11\)/],
    ['rollout: {top_p: 0}', /rollout\.top_p takes number > 0 and ≤ 1, not 0/],
    ['rollout: 5', /rollout is a section: it holds keys, not 5 \(run\.yaml:1:1\)/],
    ['actor: {grad_clip: .nan}', /actor\.grad_clip takes number > 0, not/],
    ['actor: {clip_ratio_c: 0.5}', /actor\.clip_ratio_c takes 0, or a number > 1, not 0\.5/],
    ['algorithm: {name: ppo}', /algorithm\.name takes archer, grpo, dapo, dr_grpo, not "ppo"/],
    ['trainer: {val_before_train: yes}', /takes true, false \(on, off\), not "yes"/],
    ['beta: -1', /beta \(actor\.kl_loss_coef\) takes number ≥ 0, not -1/],
    ['trainer: {logger: [console, wandb]}', /a list out of console, jsonl, tensorboard/],
    ['rollout: {n: [}', /run\.yaml:1:\d+: not valid YAML/],
    ['rollout: {n: 4, n: 5}', /run\.yaml:1:\d+: not valid YAML: Map keys must be unique/],
    ['- rollout', /a configuration is a map of keys/],
    ['rollout: {n: 1}', /G = 1/],
    ['rollout: {temperature: 0}', /greedy.*val\.temperature/],
    ['data: {train_batch_size: 8}\nactor: {ppo_mini_batch_size: 16}', /16 is more than data\.train_batch_size = 8/],
    ['actor: {kl_normalizer: per-class}', /needs actor\.loss_agg_mode = seq-mean-token-mean, not token-mean/],
    ['lora: {rank: -1}', /lora\.rank takes integer ≥ 0, not -1/],
    ['lora: {alpha: 0}', /lora\.alpha takes number > 0, not 0/],
    ['lora: {rank: 4, target_modules: [q_porj]}', /no module q_porj: did you mean q_proj\?.*\(run\.yaml:1:\d+\)/],
    ['lora: {rank: 4, target_modules: []}', /lora\.target_modules is empty/],
    ['algorithm: {overlong_buffer: {enable: true, len: 9000}}', /9000 is more than data\.max_response_length = 8192/],
  ])('%s', (text, message) => {
    expect(fault(() => yaml(text))).toMatch(message);
  });

  test.each([
    ['rollout.n', /write --set key=value/],
    ['rollout.n=[', /not valid YAML/],
    ['rollout.m=4', /did you mean rollout\.n\? \(--set rollout\.m=4\)/],
  ])('--set %s', (flag, message) => {
    expect(fault(() => loadConfig({ sets: [flag] }))).toMatch(message);
  });

  test('all of them at once', () => {
    const message = fault(() => yaml('rollout: {n: x}\nfoo_bar_baz: 1\nactor: {grad_clip: 0}'));
    expect(message).toMatch(/^The configuration has 3 faults:/);
    expect(message.split('\n')).toHaveLength(4);
  });
});

group('warnings', () => {
  test.each([
    [
      'algorithm: {name: grpo}\nactor: {low_entropy_clip_ratio_low: 0.1}',
      /low_entropy_clip_ratio_low has no effect.*run\.yaml:2/,
    ],
    ['actor: {clip_ratio_low: 0.1}', /actor\.clip_ratio_low has no effect: algorithm\.name = archer/],
    ['algorithm: {name: dapo, fidelity: reference}', /algorithm\.fidelity has no effect/],
    ['algorithm: {name: dapo}\nactor: {kl_loss_type: k2}', /actor\.kl_loss_type has no effect: every KL/],
    ['actor: {loss_norm_length: 100}', /actor\.loss_norm_length has no effect/],
    ['algorithm: {overlong_buffer: {len: 10}}', /overlong_buffer\.len has no effect/],
    ['algorithm: {filter_groups: {max_num_gen_batches: 3}}', /no groups are refilled/],
    ['reward: {name: math, path: r.js}', /reward\.name has no effect: reward\.path wins/],
    ['data: {apply_chat_template: off, system_prompt: hi}', /data\.system_prompt has no effect/],
    [
      'rollout: {top_p: 0.9, top_k: 20, min_p: 0.1}',
      /top_p = 0\.9, rollout\.top_k = 20, rollout\.min_p = 0\.1: .*truncated/,
    ],
  ])('%s', (text, message) => {
    const { warnings } = yaml(text);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatch(message);
  });
});

group('the printed form and the hash', () => {
  test('what is printed loads as the same configuration', () => {
    const { config, sources } = loadConfig({
      object: {
        data: { train_files: ['a b.jsonl', 'c, d.jsonl'], val_files: [], instruction: 'Think.\n\nBox: "\\boxed{}"' },
        rollout: { stop: ['\n', '# no', ''.padEnd(80, 'x')] },
        actor: { optim: { lr: 3e-7 } },
      },
      sets: ['rollout.n=4'],
    });
    const printed = describe(config, sources);
    expect(loadConfig({ text: printed }).config).toEqual(config);
    expect(printed).toMatch(/^ {4}lr: 3e-7 +# file$/m);
    expect(printed).toMatch(/^ {2}n: 4 +# flag$/m);
    expect(printed).toMatch(/^ {2}clip_ratio_c: 0 +# preset$/m);
  });

  test('the hash sees what changes numbers and nothing else', () => {
    const hash = (...sets: string[]) => configHash(loadConfig({ sets }).config);
    const plain = hash();
    expect(plain).toMatch(/^[0-9a-f]{64}$/);
    for (const flag of ['total_training_steps=5', 'default_local_dir=x', 'logger=jsonl', 'save_freq=3']) {
      expect(hash(`trainer.${flag}`)).toBe(plain);
    }
    for (const flag of ['trainer.seed=1', 'actor.optim.lr=2e-6', 'rollout.n=8', 'algorithm.fidelity=reference']) {
      expect(hash(flag)).not.toBe(plain);
    }
    const cosine = 'actor.optim.lr_scheduler=cosine';
    expect(hash(cosine, 'trainer.total_training_steps=5')).not.toBe(hash(cosine, 'trainer.total_training_steps=6'));
  });
});

test('edit distance counts a swap once; the nearest key has a limit', () => {
  expect([editDistance('', 'abc'), editDistance('lr', 'rl'), editDistance('kitten', 'sitting')]).toEqual([3, 1, 3]);
  expect(nearest('rollout.temperatur')).toBe('rollout.temperature');
  expect(nearest('something_else_entirely')).toBeUndefined();
});
