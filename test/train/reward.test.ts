// A reward that misbehaves costs its own response, has a typed outcome, and never looks like a model that learns nothing.
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type RewardFunction, type StepRecord, train } from '../../lib/index.js';
import { tempDir, tinyConfig } from './tiny-run.js';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

async function oneStep(reward: RewardFunction): Promise<StepRecord> {
  const config = tinyConfig(dir.path, {
    data: { val_files: [] },
    reward: { self_test: false, timeout_seconds: 0.2 },
    trainer: { total_training_steps: 1, save_freq: -1 },
  });
  let last: StepRecord | undefined;
  for await (const record of train({ config, reward })) last = record;
  return last as StepRecord;
}

test('each fault is an outcome, and the rest of the batch is scored', async () => {
  let call = 0;
  const { metrics } = await oneStep(() => {
    call += 1;
    if (call === 1) throw new Error('broken');
    if (call === 2) return Number.NaN;
    if (call === 3) return new Promise(() => {});
    return call % 2;
  });
  expect(call).toBe(16);
  expect(metrics).toMatchObject({ 'reward/crash': 2, 'reward/timeout': 1, 'reward/ok': 6, 'reward/wrong': 7 });
});

test('a sync function with its own score trains; the score is what the metrics show', async () => {
  const { metrics } = await oneStep(({ response }) => response.length / 100);
  expect(metrics['critic/score/mean']).toBeGreaterThan(0.05);
  expect(metrics['actor/grad_norm']).toBeGreaterThan(0);
});

test('the self-test refuses a reward that gives everybody the same, before the first step', async () => {
  const config = tinyConfig(dir.path);
  const start = async () => {
    for await (const _ of train({ config, reward: () => 1 }));
  };
  await expect(start()).rejects.toMatchObject({ code: 'ARCHER_E_REWARD' });
});
