// Adapters from end to end: they alone change and are saved, the reference is the base, sampling and training agree, and what
// is exported is what was trained.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Policy, type StepRecord, train } from '../../lib/index.js';
import { bundledModel } from '../../lib/model/bundled.js';
import { readModelFolder } from '../../lib/model/folder.js';
import { readTensorTable } from '../../lib/model/safetensors.js';
import { buildInfo } from '../../lib/native/engine.js';
import { Weights } from '../../lib/native/policy.js';
import { writeModelFiles } from '../../lib/train/model-files.js';
import { tempDir, tinyConfig } from './tiny-run.js';

const hasTiles = ['avx512_bf16', 'amx'].includes(buildInfo().cpuIsa);
const lora = { rank: 4, alpha: 8, target_modules: ['q_proj', 'v_proj', 'down_proj'] };
const ids = Int32Array.from([5, 9, 12, 7, 3, 30, 8]);

let dir: ReturnType<typeof tempDir>;
let records: StepRecord[];
let checkpoint: string;
beforeAll(async () => {
  dir = tempDir();
  const config = tinyConfig(dir.path, {
    lora,
    model: { dtype: 'bfloat16' },
    reward: { self_test: false },
    actor: {
      old_log_prob: 'rollout',
      low_entropy_kl_loss_coef: 0.1,
      optim: { lr: 0.01, lr_warmup_steps: 0 },
      ppo_mini_batch_size: 4,
    },
    trainer: { total_training_steps: 3, save_freq: 3, test_freq: -1, val_before_train: false },
  });
  records = [];
  for await (const record of train({ config, reward: ({ response }) => response.length / 100 })) records.push(record);
  checkpoint = join(dir.path, 'runs/archer-native/archer/global_step_3');
});
afterAll(() => dir.remove());

const metric = (step: number, name: string) => records[step - 1]?.metrics[name] as number;

describe('a run with lora.rank', () => {
  test('fresh adapters are the reference: no KL at first, some once they have moved', () => {
    expect(metric(1, 'actor/grad_norm')).toBeGreaterThan(0);
    // the reference's log-probs are the training forward's to the bit where both run in tiles
    if (hasTiles) expect(metric(1, 'actor/kl_loss')).toBe(0);
    expect(Math.abs(metric(1, 'actor/kl_loss'))).toBeLessThan(1e-4);
    expect(metric(3, 'actor/kl_loss')).toBeGreaterThan(1e-4);
  });

  (hasTiles ? test : test.skip)('a sample’s log-prob has the training forward’s bits', () => {
    for (const { metrics } of records) {
      expect(metrics).toMatchObject({
        'training/rollout_log_probs_diff_mean': 0,
        'actor/ppo_kl': 0,
        'actor/reasoning/ratio_mean': 1,
      });
    }
  });

  test('the checkpoint holds the adapters and their moments, and names the base', async () => {
    expect(readdirSync(checkpoint).sort()).toEqual([
      'adapter_config.json',
      'adapter_model.safetensors',
      'manifest.json',
      'trainer',
    ]);
    const written = JSON.parse(readFileSync(join(checkpoint, 'adapter_config.json'), 'utf8'));
    expect(written).toMatchObject({
      peft_type: 'LORA',
      r: 4,
      lora_alpha: 8,
      target_modules: lora.target_modules,
      base_model_name_or_path: bundledModel,
    });
    const tensors = await readTensorTable(join(checkpoint, 'adapter_model.safetensors'));
    const { numLayers } = (await readModelFolder(bundledModel)).nativeConfig;
    expect(tensors).toHaveLength(numLayers * 3 * 2);
    expect(tensors[0]).toMatchObject({
      name: 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight',
      dtype: 'F32',
    });
    const moments = await readTensorTable(join(checkpoint, 'trainer/optimizer.safetensors'));
    expect(moments.every(({ name }) => name.includes('.lora_'))).toBe(true);
  });

  test('the checkpoint is a model: the base under its adapters, which base() shows unchanged', async () => {
    using trained = await Policy.load(checkpoint, { numThreads: 1 });
    using initial = await Policy.load('bundled', { numThreads: 1 });
    const base = trained.weights.base();
    const offsets = Int32Array.of(0, ids.length);
    expect(await base.logits(ids, offsets)).toEqual(await initial.logits(ids));
    expect(largestDifference(await trained.logits(ids), await initial.logits(ids))).toBeGreaterThan(0.01);
    base.dispose();
    expect((await trained.logits(ids)).length).toBeGreaterThan(0);
  });

  test('merged, it is one Hugging Face folder that gives the same logits', async () => {
    const merged = tempDir();
    try {
      const folder = await readModelFolder(checkpoint);
      const weights = await Weights.load(folder, { numThreads: 1 });
      await writeModelFiles(merged.path, weights);
      weights.dispose();
      expect(existsSync(join(merged.path, 'adapter_config.json'))).toBe(false);
      using one = await Policy.load(merged.path, { numThreads: 1 });
      using two = await Policy.load(checkpoint, { numThreads: 1 });
      expect(largestDifference(await one.logits(ids), await two.logits(ids))).toBeLessThan(1e-4);
    } finally {
      merged.remove();
    }
  });
});

describe('what does not fit is refused by name', () => {
  const resumed = async (changes: Record<string, object>) => {
    for await (const _ of train({
      config: tinyConfig(dir.path, { trainer: { resume_mode: checkpoint }, ...changes }),
    }));
  };

  test('other adapters than the checkpoint’s, or none', async () => {
    await expect(resumed({ lora: { ...lora, rank: 8 } })).rejects.toMatchObject({
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining('"rank":4'),
    });
    await expect(resumed({})).rejects.toMatchObject({
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining('adapters of rank 4'),
    });
  });

  test('an adapter as the initial model', async () => {
    const config = tinyConfig(dir.path, { model: { path: checkpoint }, lora });
    const run = async () => {
      for await (const _ of train({ config }));
    };
    await expect(run()).rejects.toMatchObject({
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining('is an adapter over'),
    });
  });

  test('an adapter folder that is no plain LoRA, or not over this base', async () => {
    const other = tempDir();
    try {
      const config = JSON.parse(readFileSync(join(checkpoint, 'adapter_config.json'), 'utf8'));
      writeFileSync(
        join(other.path, 'adapter_model.safetensors'),
        readFileSync(join(checkpoint, 'adapter_model.safetensors')),
      );
      const refusals: [object, string][] = [
        [{ use_dora: true }, 'use_dora'],
        [{ r: 8 }, 'asks for [8'],
        [{ target_modules: ['q_proj', 'v_proj'] }, 'has no place'],
        [{ target_modules: 'all-linear' }, 'is missing'],
        [{ target_modules: ['c_attn'] }, 'c_attn'],
      ];
      for (const [changes, words] of refusals) {
        writeFileSync(join(other.path, 'adapter_config.json'), JSON.stringify({ ...config, ...changes }));
        await expect(readModelFolder(other.path)).rejects.toMatchObject({
          code: 'ARCHER_E_MODEL',
          message: expect.stringContaining(words),
        });
      }
    } finally {
      other.remove();
    }
  });
});

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] as number))), 0);
}
