// kill -9 in mid-run and the same command again ends as the uninterrupted run does; Ctrl-C saves and leaves with 130.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { fingerprint, tempDir } from '../train/tiny-run.js';
import { startCli } from './run-cli.js';

let whole: ReturnType<typeof tempDir>;
let parts: ReturnType<typeof tempDir>;
beforeEach(() => {
  whole = tempDir();
  parts = tempDir();
});
afterEach(() => {
  whole.remove();
  parts.remove();
});

const args = (dir: string) => [
  'train',
  ...[
    'num_threads=1',
    'data.train_batch_size=4',
    'actor.ppo_mini_batch_size=2',
    'rollout.n=4',
    'data.max_response_length=40',
    'val.n=2',
    'val.max_samples=3',
    'algorithm.filter_groups.enable=false',
    'trainer.experiment_name=archer',
    'trainer.total_training_steps=6',
    'trainer.save_freq=2',
    'trainer.test_freq=3',
    `trainer.default_local_dir=${dir}/runs`,
    `trainer.rollout_data_dir=${dir}/rollouts`,
  ].flatMap((one) => ['--set', one]),
];

/** Waits until the run has written so many lines of metrics. */
async function lines(dir: string, count: number): Promise<void> {
  const path = join(dir, 'runs/archer-native/archer/metrics.jsonl');
  for (;;) {
    if (existsSync(path) && readFileSync(path, 'utf8').split('\n').length > count) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

test('kill -9, twice, then to the end: bit for bit the uninterrupted run', async () => {
  expect((await startCli(args(whole.path)).done).code).toBe(0);
  for (const count of [2, 5]) {
    const { child, done } = startCli(args(parts.path));
    await lines(parts.path, count);
    child.kill('SIGKILL');
    expect((await done).signal).toBe('SIGKILL');
  }
  expect((await startCli(args(parts.path)).done).code).toBe(0);
  expect(fingerprint(parts.path, 6)).toEqual(fingerprint(whole.path, 6));
}, 180_000);

test('Ctrl-C saves the last completed step and exits with 130; the same command goes on', async () => {
  expect((await startCli(args(whole.path)).done).code).toBe(0);
  const { child, done } = startCli(args(parts.path));
  await lines(parts.path, 4);
  child.kill('SIGINT');
  const result = await done;
  expect(result.code).toBe(130);
  expect(result.stderr).toContain('Interrupted');
  expect(existsSync(join(parts.path, 'runs/archer-native/archer/global_step_3'))).toBe(true);
  const rest = await startCli(args(parts.path)).done;
  expect(rest.code).toBe(0);
  expect(rest.stdout).toContain('resumed after step');
  expect(fingerprint(parts.path, 6)).toEqual(fingerprint(whole.path, 6));
}, 180_000);
