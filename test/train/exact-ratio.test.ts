// bfloat16 in tiles: what sampling says of a token and what training says of it are the same bits, so the ratio of the first
// update is exactly 1 with old_log_prob: rollout.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Policy, train } from '../../lib/index.js';
import { buildInfo } from '../../lib/native/engine.js';
import { tempDir, tinyConfig } from './tiny-run.js';

const { cpuIsa } = buildInfo();
const hasTiles = cpuIsa === 'avx512_bf16' || cpuIsa === 'amx';
if (!hasTiles) process.stderr.write(`skipped: exact log-probs need AVX512-BF16 or AMX, this processor gives ${cpuIsa}\n`);
const withTiles = hasTiles ? test : test.skip;

let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir.remove());

withTiles('log-probs and entropies as sampled are those of scoring, bit for bit', async () => {
  using policy = await Policy.load('bundled', { dtype: 'bfloat16', numThreads: 2 });
  for (const temperature of [1, 0.7]) {
    const [responses] = await policy.generate(['What is 12 + 30?'], { n: 5, temperature, maxNewTokens: 40, applyChatTemplate: false });
    const prompt = await policy.tokenizer.encode('What is 12 + 30?');
    for (const { ids, logProbs, entropies } of responses!) {
      const scores = await policy.score([...prompt, ...ids], { temperature, promptLength: prompt.length });
      expect(scores.logProbs.slice(prompt.length)).toEqual(logProbs);
      expect(scores.entropies.slice(prompt.length)).toEqual(entropies);
    }
  }
});

withTiles('old_log_prob rollout: the engines differ by 0 and the first update has ratio 1', async () => {
  const config = tinyConfig(dir.path, {
    model: { dtype: 'bfloat16' },
    reward: { self_test: false },
    actor: { old_log_prob: 'rollout', ppo_mini_batch_size: 4 },
    trainer: { total_training_steps: 2, save_freq: -1, test_freq: -1, val_before_train: false },
  });
  for await (const { metrics } of train({ config, reward: ({ response }) => response.length / 100 })) {
    expect(metrics).toMatchObject({
      'training/rollout_probs_diff_mean': 0,
      'training/rollout_probs_diff_max': 0,
      'training/rollout_probs_diff_std': 0,
      'training/rollout_log_probs_diff_mean': 0,
      'actor/ppo_kl': 0,
      'actor/knowledge/ratio_mean': 1,
      'actor/reasoning/ratio_mean': 1,
    });
    expect(metrics['actor/grad_norm']).toBeGreaterThan(0);
  }
});
