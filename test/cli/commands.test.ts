// The commands as a user meets them: help, output, JSON, exit codes.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { root, runCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

const tiny = (...more: string[]) =>
  [
    'num_threads=1',
    'data.train_batch_size=4',
    'actor.ppo_mini_batch_size=2',
    'rollout.n=4',
    'data.max_response_length=40',
    'val.n=2',
    'val.max_samples=3',
    'algorithm.filter_groups.enable=false',
    'trainer.total_training_steps=2',
    `trainer.default_local_dir=${dir.path}/runs`,
    ...more,
  ].flatMap((one) => ['--set', one]);

test('--help teaches, --version is the package’s, and neither loads the addon', async () => {
  const help = await runCli('--help');
  expect(help.code).toBe(0);
  for (const word of ['train', 'eval', 'generate', 'plan', 'doctor', 'setup', 'Exit codes']) expect(help.stdout).toContain(word);
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  expect((await runCli('--version')).stdout.trim()).toBe(version);
});

test('an unknown command suggests the nearest and exits with 2', async () => {
  const result = await runCli('trian');
  expect(result.code).toBe(2);
  expect(result.stderr).toContain('train');
});

describe('train', () => {
  test('without a file runs the quickstart recipe, with a readable table', async () => {
    const result = await runCli('train', ...tiny());
    expect(result.stderr).toBe('');
    expect(result.code).toBe(0);
    expect(result.stdout).toContain('reward');
    const runDir = join(dir.path, 'runs/archer-native/quickstart');
    for (const name of ['metrics.jsonl', 'timings.jsonl', 'run.json', 'tensorboard', 'global_step_2']) {
      expect(existsSync(join(runDir, name))).toBe(true);
    }
    const lines = readFileSync(join(runDir, 'metrics.jsonl'), 'utf8').trim().split('\n').map((line) => JSON.parse(line));
    expect(lines.map(({ step }) => step)).toEqual([0, 1, 2]);
    for (const name of [
      'actor/pg_loss',
      'actor/grad_norm',
      'actor/knowledge/token_share',
      'actor/reasoning/pg_clipfrac',
      'actor/entropy_threshold_mean',
      'critic/score/mean',
      'response_length/mean',
      'batch/kept_groups',
      'reward/ok',
      'training/rollout_probs_diff_max',
    ]) {
      expect(lines[1]).toHaveProperty([name]);
    }
  });

  test('--json prints the plan, one line per step and nothing else on stdout', async () => {
    const result = await runCli('train', '--json', ...tiny());
    expect(result.code).toBe(0);
    const events = result.stdout.trim().split('\n').map((line) => JSON.parse(line));
    expect(events.map(({ event }) => event)).toEqual(['plan', 'step', 'step', 'step', 'finished']);
  });

  test('--print-config shows every value with its source', async () => {
    const result = await runCli('train', '--print-config', ...tiny());
    expect(result.code).toBe(0);
    expect(result.stdout).toMatch(/token_entropy_quantile: 0\.8/);
    expect(result.stdout).toMatch(/train_batch_size: 4 +# flag/);
  });
});

test('plan says what a run amounts to before anything is spent', async () => {
  const { code, stdout } = await runCli('plan', '--json', ...tiny());
  expect(code).toBe(0);
  const plan = JSON.parse(stdout);
  expect(plan.numbers).toMatchObject({ prompts: 4, responses: 16, updates: 2, steps: 2 });
  expect(plan.numbers.peakBytes).toBeGreaterThan(plan.numbers.parameters * 16);
  expect((await runCli('plan', ...tiny())).stdout).toContain('Memory');
});

test('doctor finds everything in order', async () => {
  const { code, stdout } = await runCli('doctor', '--json', ...tiny());
  const report = JSON.parse(stdout);
  expect(report.checks.filter(({ ok }: { ok: boolean }) => !ok)).toEqual([]);
  expect(code).toBe(0);
  expect(report.checks.map(({ name }: { name: string }) => name)).toEqual(
    expect.arrayContaining(['addon', 'libtorch', 'loss gradients', 'tokenizer', 'chat template', 'data and reward']),
  );
});

test('generate answers, the same for the same seed', async () => {
  const ask = () => runCli('generate', 'Compute 3 + 4 * 2.', '--seed', '3', '--json', '-n', '2', '--threads', '1');
  const first = await ask();
  expect(first.code).toBe(0);
  expect(first.stdout.trim().split('\n')).toHaveLength(2);
  expect((await ask()).stdout).toBe(first.stdout);
});
