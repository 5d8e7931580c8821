// Same seed, same bits; N steps = k steps + resume + N−k steps, in weights, optimizer state, metrics and sample ids.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type MetricsSink, type StepRecord, train } from '../../lib/index.js';
import { readState } from '../../lib/train/state.js';
import { fingerprint, tempDir, tinyConfig } from './tiny-run.js';

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

async function runAll(config: object, signal?: AbortSignal): Promise<StepRecord[]> {
  const records: StepRecord[] = [];
  for await (const record of train({ config: config as never, signal })) records.push(record);
  return records;
}

const forms: Record<string, Record<string, object>> = {
  'the paper’s form': {},
  'the reference’s form, three inner epochs': { algorithm: { fidelity: 'reference' } },
  'bfloat16 with float32 masters': { model: { dtype: 'bfloat16' } },
  'adapters in bfloat16, with a reference': { model: { dtype: 'bfloat16' }, lora: { rank: 4 } },
  'dapo with refill and batch scope': {
    algorithm: { name: 'dapo', filter_groups: { enable: true, refill: true, max_num_gen_batches: 2 } },
    actor: { entropy_scope: 'batch' },
    trainer: { experiment_name: 'archer' },
  },
};

describe.each(Object.entries(forms))('%s', (_, changes) => {
  test('a run that was left after two steps and resumed ends as the uninterrupted one', async () => {
    const records = await runAll(tinyConfig(whole.path, changes));
    expect(records.map(({ step }) => step)).toEqual([0, 1, 2, 3, 4]);

    const config = tinyConfig(parts.path, changes);
    for await (const { step } of train({ config })) if (step === 2) break;
    const rest = await runAll(config);
    expect(rest.map(({ step }) => step)).toEqual([3, 4]);
    expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
    const lengths = async (dir: string) =>
      (await readState(join(dir, 'runs/archer-native/archer/global_step_4'))).responseLengths;
    const expected = await lengths(whole.path);
    expect(Object.keys(expected ?? {}).length).toBeGreaterThanOrEqual(16);
    expect(await lengths(parts.path)).toEqual(expected);
  });
});

test('another seed gives other samples', async () => {
  await runAll(tinyConfig(whole.path, { trainer: { total_training_steps: 1 } }));
  await runAll(tinyConfig(parts.path, { trainer: { total_training_steps: 1, seed: 7 } }));
  const samples = (dir: string) => readFileSync(join(dir, 'rollouts/step_000001.jsonl'), 'utf8');
  expect(samples(whole.path)).not.toEqual(samples(parts.path));
});

test('an abort saves the last completed step; the run goes on from there to the same end', async () => {
  await runAll(tinyConfig(whole.path));
  const config = tinyConfig(parts.path);
  const abort = new AbortController();
  const seen: number[] = [];
  const interrupted = async () => {
    for await (const { step } of train({ config, signal: abort.signal })) {
      seen.push(step);
      // in the middle of step 4's generation
      if (step === 3) setTimeout(() => abort.abort(), 20);
    }
  };
  await expect(interrupted()).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
  expect(seen).toEqual([0, 1, 2, 3]);
  expect(existsSync(join(parts.path, 'runs/archer-native/archer/global_step_3'))).toBe(true);
  expect((await runAll(config)).map(({ step }) => step)).toEqual([4]);
  expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
});

test('an abort in the validation after an update loses neither the update nor its metrics', async () => {
  await runAll(tinyConfig(whole.path));
  const config = tinyConfig(parts.path);
  const abort = new AbortController();
  const abortInValidation: MetricsSink = {
    start: () => {},
    step: () => {},
    close: () => {},
    progress: ({ step, stage }) => {
      if (step === 2 && stage === 'testing') abort.abort();
    },
  };
  const interrupted = async () => {
    for await (const _ of train({ config, signal: abort.signal, sinks: [abortInValidation] }));
  };
  await expect(interrupted()).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
  expect(existsSync(join(parts.path, 'runs/archer-native/archer/global_step_2'))).toBe(true);
  expect((await runAll(config)).map(({ step }) => step)).toEqual([2, 3, 4]);
  expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
});

test('a finished run is left alone: the same command begins a new numbered folder', async () => {
  const config = tinyConfig(whole.path, { trainer: { total_training_steps: 1, val_before_train: false } });
  await runAll(config);
  const before = readFileSync(join(whole.path, 'runs/archer-native/archer/metrics.jsonl'));
  await runAll(config);
  expect(readFileSync(join(whole.path, 'runs/archer-native/archer/metrics.jsonl'))).toEqual(before);
  expect(readFileSync(join(whole.path, 'runs/archer-native/archer-2/metrics.jsonl'))).toEqual(before);
});

test('a damaged checkpoint is passed over for the one before it', async () => {
  const config = tinyConfig(parts.path, { trainer: { save_freq: 1 } });
  for await (const { step } of train({ config })) if (step === 3) break;
  const { truncateSync } = await import('node:fs');
  truncateSync(join(parts.path, 'runs/archer-native/archer/global_step_3/model.safetensors'), 1000);
  expect((await runAll(config)).map(({ step }) => step)).toEqual([3, 4]);
  await runAll(tinyConfig(whole.path, { trainer: { save_freq: 1 } }));
  expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
});

test('a run can be iterated once', async () => {
  const run = train({ config: tinyConfig(whole.path, { trainer: { total_training_steps: 1 } }) });
  for await (const _ of run);
  const again = async () => {
    for await (const _ of run);
  };
  await expect(again()).rejects.toMatchObject({ code: 'ARCHER_E_CONFIG' });
});
