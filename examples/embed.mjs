// Embedding: train inside a Node program with a reward *function*, watch the steps, stop early, use the result.
//
//   node examples/embed.mjs [steps]
//
// The bundled model learns to give short worked solutions that are still right.
import { Policy, train } from 'archer-native';

const steps = Number(process.argv[2] ?? 10);
const stop = new AbortController();

/** Right answers earn 1, less a little for every word: the verifier's job and the length's in one number. */
function shortAndRight({ response, groundTruth }) {
  const boxed = /\\boxed\{(-?\d+)\}/.exec(response)?.[1];
  if (boxed !== groundTruth) return 0;
  return Math.max(0.1, 1 - response.split(/\s+/).length / 200);
}

const run = train({
  config: {
    data: { train_batch_size: 8, max_prompt_length: 128, max_response_length: 128, val_files: [] },
    rollout: { n: 8 },
    actor: { ppo_mini_batch_size: 8, optim: { lr: 3e-4, lr_warmup_steps: 2 } },
    trainer: { total_training_steps: steps, save_freq: steps, logger: ['jsonl'], experiment_name: 'embed' },
  },
  reward: shortAndRight,
  signal: stop.signal,
});

for await (const { step, metrics } of run) {
  const reward = metrics['critic/score/mean'];
  console.log(`step ${step}: reward ${reward.toFixed(3)}, ${metrics['response_length/mean'].toFixed(1)} tokens`);
  // stop.abort() here would save the last completed step and end the loop with ARCHER_E_ABORTED
}

const policy = await Policy.load(`${run.runDir}/global_step_${steps}`);
const [[answer]] = await policy.generate(['Compute 3 + 4 * 2.'], { temperature: 0 });
console.log(answer.text);
policy.dispose();
