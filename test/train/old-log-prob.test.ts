// actor.old_log_prob: where old log-probs come from, what a rollout that drifts away does to `auto`, and that the finding
// outlives a resume.
import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { train } from '../../lib/index.js';
import { LocalEngine } from '../../lib/rollout/local-engine.js';
import { fingerprint, tempDir, tinyConfig } from './tiny-run.js';

let whole: ReturnType<typeof tempDir>;
let parts: ReturnType<typeof tempDir>;
beforeEach(() => {
  whole = tempDir();
  parts = tempDir();
});
afterEach(() => {
  jest.restoreAllMocks();
  whole.remove();
  parts.remove();
});

/** From training step `from` on the log-probs as sampled are `nats` too high. */
function driftFrom(from: number, nats: number): void {
  const generate = LocalEngine.prototype.generate;
  jest.spyOn(LocalEngine.prototype, 'generate').mockImplementation(async function (this: LocalEngine, request) {
    const groups = await generate.call(this, request);
    if (request.step >= from) {
      for (const { responses } of groups) {
        for (const { logProbs } of responses) logProbs.forEach((one, t) => (logProbs[t] = one + nats));
      }
    }
    return groups as never;
  });
}

const oldLogProb = (mode: string) => ({ actor: { old_log_prob: mode }, trainer: { val_before_train: false } });

async function run(config: ReturnType<typeof tinyConfig>, steps = 4) {
  const metrics: Record<string, number>[] = [];
  const timings: Record<string, number>[] = [];
  const notes: string[] = [];
  const sink = { start: () => {}, step: () => {}, close: () => {}, note: (line: string) => void notes.push(line) };
  for await (const record of train({ config, sinks: [sink] })) {
    metrics.push(record.metrics);
    timings.push(record.timings);
    if (record.step === steps) break;
  }
  const of = (name: string) => metrics.map((one) => one[name]);
  return { of, notes, scored: timings.map((one) => 'timing_s/old_log_prob' in one) };
}

test('auto recomputes from the step after the one that was too far off, says so, and still measures', async () => {
  driftFrom(2, 0.01);
  const { of, notes, scored } = await run(tinyConfig(whole.path, oldLogProb('auto')));
  expect(of('training/old_log_prob_recomputed')).toEqual([0, 0, 1, 1]);
  expect(scored).toEqual([false, false, true, true]);
  expect(notes).toEqual([expect.stringMatching(/^step 2: .* 0\.0100 nats .* beyond 0\.001 \(float32\): actor\.old_log_prob auto/)]);
  const differences = of('training/rollout_log_probs_diff_mean') as number[];
  expect(differences[0]).toBeLessThan(1e-5);
  for (const one of differences.slice(1)) expect(one).toBeCloseTo(0.01, 4);
});

test('what auto found is in the checkpoint: a resumed run ends as the uninterrupted one', async () => {
  driftFrom(1, 0.01);
  await run(tinyConfig(whole.path, oldLogProb('auto')));
  const config = tinyConfig(parts.path, oldLogProb('auto'));
  await run(config, 2);
  const { of, notes } = await run(config);
  expect(of('training/old_log_prob_recomputed')).toEqual([1, 1]);
  expect(notes).toEqual([]);
  expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
});

test('auto in agreement is rollout, bit for bit, without a forward pass', async () => {
  const auto = await run(tinyConfig(whole.path, oldLogProb('auto')));
  await run(tinyConfig(parts.path, oldLogProb('rollout')));
  expect(auto.scored).toEqual([false, false, false, false]);
  expect(auto.notes).toEqual([]);
  expect(fingerprint(parts.path, 4)).toEqual(fingerprint(whole.path, 4));
});
