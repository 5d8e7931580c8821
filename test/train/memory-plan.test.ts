// The memory plan against real runs: what `train` says before it starts is what the process then holds at its peak.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { makeRandomModel } from '../../lib/bench/random-model.js';
import { runCli } from '../cli/run-cli.js';
import { tempDir } from './tiny-run.js';

const promptTokens = 64;
let dir: ReturnType<typeof tempDir>;

// Large enough that what libraries do by the way does not decide: 26 million weights, 2048 tokens per micro-batch.
beforeAll(() => {
  dir = tempDir();
  makeRandomModel(join(dir.path, 'model'), {
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 6,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 64,
    vocab_size: 16_384,
    max_position_embeddings: 1024,
  });
  const row = JSON.stringify({ prompt: 'word '.repeat(promptTokens).trim(), answer: '1' });
  writeFileSync(join(dir.path, 'data.jsonl'), `${row}\n`.repeat(4));
  // Rewards that differ within a group, or there would be nothing to update with.
  writeFileSync(join(dir.path, 'reward.mjs'), 'let i = 0;\nexport default () => i++ % 2;\n');
  mkdirSync(join(dir.path, 'runs'));
});
afterAll(() => dir.remove());

const settings = (...more: string[]) =>
  [
    'num_threads=1',
    `model.path=${dir.path}/model`,
    `data.train_files=${dir.path}/data.jsonl`,
    'data.apply_chat_template=false',
    'data.train_batch_size=2',
    'data.max_response_length=64',
    'rollout.n=8',
    'actor.ppo_mini_batch_size=2',
    `reward.path=${dir.path}/reward.mjs`,
    'reward.self_test=false',
    'reward.workers=1',
    'trainer.total_training_steps=2', // the second begins with what the first has kept
    'trainer.save_freq=-1',
    'trainer.resume_mode=disable',
    `trainer.default_local_dir=${dir.path}/runs`,
    ...more,
  ].flatMap((one) => ['--set', one]);

/** Bytes that hold the run, if the update gives its buffers back before sampling and scoring. */
async function lessThanAll(given: string[]): Promise<number> {
  const { memory } = JSON.parse((await runCli('plan', '--json', ...given)).stdout);
  return memory.peakBytes - 16 * 2 ** 20;
}

describe('the planned peak is within 10 % of the measured one', () => {
  const withoutReference = 'actor.low_entropy_kl_loss_coef=0';
  test.each([
    ['bfloat16 with a reference model', ['model.dtype=bfloat16']],
    [
      'bfloat16, layers computed again',
      ['model.dtype=bfloat16', 'model.gradient_checkpointing=true', withoutReference],
    ],
    [
      'float32 with a reference model, layers computed again',
      ['model.dtype=float32', 'model.gradient_checkpointing=true'],
    ],
    ['float32', ['model.dtype=float32', withoutReference]],
    ['bfloat16, less than it takes to keep buffers', ['model.dtype=bfloat16', withoutReference, 'less']],
  ])(
    '%s',
    async (_, changes) => {
      const isShort = changes.at(-1) === 'less';
      const roomy = settings(...changes.slice(0, isShort ? -1 : undefined));
      const budget = isShort ? ['--set', `memory_budget=${await lessThanAll(roomy)}`] : [];
      const { code, stdout } = await runCli('train', '--json', ...roomy, ...budget);
      expect(code).toBe(0);
      const events = stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line));
      const { memory } = events.find(({ event }) => event === 'plan');
      expect(memory.choices.keepBuffers).toBe(!isShort);
      const measured = events.filter(({ event }) => event === 'step').at(-1).timings['perf/max_memory_gb'] * 2 ** 30;
      // What the process held before it loaded the model is measured, not planned.
      const before = memory.parts.find(({ name }: { name: string }) => name === 'process').bytes;
      const ratio = (measured - before) / (memory.peakBytes - before);
      expect(ratio).toBeGreaterThan(0.9);
      expect(ratio).toBeLessThan(1.1);
    },
    300_000,
  );
});

test('a run that cannot fit is refused before it starts, and fits as the refusal says', async () => {
  const budget = 'memory_budget=800e6';
  const given = ['actor.ppo_max_token_len=4096', 'model.gradient_checkpointing=false', budget];
  const refused = await runCli('train', '--json', ...settings(...given));
  expect(refused.code).toBe(2);
  const { error } = JSON.parse(refused.stdout.trim());
  expect(error.code).toBe('ARCHER_E_OOM');
  for (const part of ['moments', 'activations', 'reference model', 'memory_budget'])
    expect(error.message).toContain(part);
  const ways = error.message.split('It fits with ')[1].split(', or with ');
  expect(ways).toHaveLength(2);
  for (const way of ways) {
    const sets = [...way.matchAll(/--set (\S+)/g)].map(([, set]) => set as string);
    const plan = await runCli('plan', '--json', ...settings(...given, ...sets));
    const { memory } = JSON.parse(plan.stdout);
    expect(memory.peakBytes).toBeLessThanOrEqual(memory.budgetBytes);
  }
});
