// The smallest real run: the bundled model on the bundled task, one thread, short responses.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ConfigInput } from '../../lib/index.js';

export function tinyConfig(dir: string, changes: Record<string, object | number | string> = {}): ConfigInput {
  const base: Record<string, object | number | string> = {
    num_threads: 1,
    data: { train_batch_size: 4, max_prompt_length: 128, max_response_length: 40 },
    rollout: { n: 4 },
    algorithm: { filter_groups: { enable: false } },
    actor: { ppo_mini_batch_size: 2, optim: { lr: 1e-4, lr_warmup_steps: 2 } },
    trainer: {
      total_training_steps: 4,
      save_freq: 2,
      test_freq: 2,
      logger: ['jsonl'],
      default_local_dir: join(dir, 'runs'),
      rollout_data_dir: join(dir, 'rollouts'),
    },
    val: { n: 2, max_samples: 3, metrics: ['avg@n'] },
  };
  return merge(base, changes) as ConfigInput;
}

function merge(a: Record<string, unknown>, b: Record<string, unknown>): Record<string, unknown> {
  const result = { ...a };
  for (const [key, value] of Object.entries(b)) {
    const isMap = (x: unknown) => typeof x === 'object' && x !== null && !Array.isArray(x);
    result[key] = isMap(value) && isMap(a[key]) ? merge(a[key] as never, value as never) : value;
  }
  return result;
}

export function tempDir(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), 'archer-train-'));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/** Everything of a run that must be equal bit for bit, as one object that Jest can compare. */
export function fingerprint(dir: string, step: number, run = 'archer-native/archer'): Record<string, string> {
  const runDir = join(dir, 'runs', run);
  const checkpoint = join(runDir, `global_step_${step}`);
  const weights = readdirSync(checkpoint).find((name) => name.endsWith('.safetensors')) ?? '';
  const files: Record<string, string> = {
    'metrics.jsonl': join(runDir, 'metrics.jsonl'),
    [weights]: join(checkpoint, weights),
    'optimizer.safetensors': join(checkpoint, 'trainer/optimizer.safetensors'),
  };
  for (const name of readdirSync(join(dir, 'rollouts'))) files[name] = join(dir, 'rollouts', name);
  return Object.fromEntries(Object.entries(files).map(([name, path]) => [name, readFileSync(path).toString('base64')]));
}
