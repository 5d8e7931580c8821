// What the memory plan adds up and chooses, over engine sizes that can be checked by hand.
import { expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config/index.js';
import type { MemoryRequest } from '../../lib/native/types.js';
import { type MemoryJob, planMemory } from '../../lib/train/memory-plan.js';
import { refuseUnlessItFits, waysToFit } from '../../lib/train/memory-remedies.js';

const mib = 2 ** 20;

/** 100 MiB of weights; activations of 0.25 MiB a token, a quarter of that with checkpointing; pages of 1 MiB. */
function partsOf({ dtype, microBatchTokens, gradientCheckpointing }: MemoryRequest) {
  const share = dtype === 'bfloat16' ? 0.5 : 1;
  return {
    weights: 100 * mib * share,
    masters: dtype === 'bfloat16' ? 100 * mib : 0,
    gradients: 100 * mib,
    moments: 200 * mib,
    activations: (microBatchTokens / (gradientCheckpointing ? 16 : 4)) * mib * share,
    microBatch: 0,
    lossChunk: 0,
    scoring: 0,
    sampling: 0,
    page: mib,
    pagePositions: 64,
  };
}

function job(budgetMib: number, ...sets: string[]): MemoryJob {
  const base = [
    'data.train_batch_size=2',
    'rollout.n=4',
    'data.max_response_length=1025',
    'actor.ppo_mini_batch_size=2',
  ];
  return {
    config: loadConfig({ sets: [...base, ...sets] }).config,
    model: {} as MemoryJob['model'],
    numThreads: 1,
    promptLengths: [128, 100, 64],
    validationLengths: [],
    processBytes: 0,
    budgetBytes: budgetMib * mib,
    partsOf,
  };
}
const bytesOf = (plan: ReturnType<typeof planMemory>, name: string) =>
  plan.parts.find((part) => part.name === name)?.bytes;

test('parts add up by phase; a prompt’s whole pages count once for its group', () => {
  const plan = planMemory(job(1e6));
  // (128 + 1024) / 64 = 18 pages, 2 of them shared by 4 responses; (100 + 1024) / 64 = 18, 1 shared.
  expect(bytesOf(plan, 'KV cache')).toBe((2 + 4 * 16 + 1 + 4 * 17) * mib);
  expect(plan.kv).toMatchObject({ group: (2 + 4 * 16) * mib, sequence: 18 * mib });
  expect(bytesOf(plan, 'reference model')).toBe(100 * mib);
  expect(bytesOf(plan, 'master weights')).toBeUndefined();
  expect(bytesOf(plan, 'activations')).toBe(1024 * mib);
  const always = plan.parts.filter(({ phase }) => phase === undefined).reduce((sum, { bytes }) => sum + bytes, 0);
  // The update's activations stay through sampling and scoring.
  expect(plan.choices.keepBuffers).toBe(true);
  expect(plan.phases).toEqual({ sampling: always + 135 * mib, scoring: always, update: always });
  expect([plan.peakPhase, plan.peakBytes]).toEqual(['sampling', plan.phases.sampling]);
  expect(bytesOf(planMemory(job(1e6, 'actor.low_entropy_kl_loss_coef=0')), 'reference model')).toBeUndefined();
});

test('the update gives its buffers back where they do not fit beside another phase, and nothing else is cut down for it', () => {
  const roomy = planMemory(job(1e6));
  const short = planMemory(job(roomy.peakBytes / mib - 1));
  expect(short.choices).toEqual({ ...roomy.choices, keepBuffers: false });
  const always = roomy.phases.update - 1024 * mib;
  expect(short.phases).toEqual({ sampling: always + 135 * mib, scoring: always, update: always + 1024 * mib });
  expect(short.peakPhase).toBe('update');
  expect(planMemory(job(roomy.peakBytes / mib)).choices.keepBuffers).toBe(true);
});

test('what the configuration leaves open is cut down step by step, what it says is not', () => {
  const chosen = (budgetMib: number, ...sets: string[]) => {
    const { microBatchTokens, gradientCheckpointing } = planMemory(job(budgetMib, ...sets)).choices;
    return [microBatchTokens, gradientCheckpointing];
  };
  expect(chosen(2000)).toEqual([4096, false]);
  // 0.25 MiB a token of the longest sequence, 1153 tokens
  expect(chosen(900)).toEqual([1024, false]);
  expect(chosen(650)).toEqual([1024, true]);
  expect(chosen(100)).toEqual([256, true]);
  expect(chosen(900, 'actor.ppo_max_token_len=4096')).toEqual([4096, true]);
  expect(chosen(900, 'actor.ppo_max_token_len=4096', 'model.gradient_checkpointing=false')).toEqual([4096, false]);
});

test('where sampling is short of room the cache gets what is left, if that holds a group', () => {
  const roomy = planMemory(job(1e6));
  const fixed = roomy.phases.scoring / mib - 1024; // without activations
  const enough = planMemory(job(fixed + 100));
  expect(enough.choices.kvBudgetBytes).toBe(100 * mib);
  expect(enough.phases.sampling).toBe(enough.budgetBytes);
  expect(planMemory(job(fixed + 60)).choices.kvBudgetBytes).toBe(0);
  expect(planMemory(job(fixed + 100, `rollout.kv_budget_bytes=${120 * mib}`)).choices.kvBudgetBytes).toBe(120 * mib);
});

test('a resumed run keeps the choices that its bits depend on', () => {
  const { choices } = planMemory(job(900), { microBatchTokens: 4096, kvBudgetBytes: 0 });
  expect(choices).toMatchObject({ microBatchTokens: 4096, kvBudgetBytes: 0, gradientCheckpointing: true });
});

test('the refusal names the two cheapest ways, and each of them fits', () => {
  const given = ['actor.ppo_max_token_len=4096', 'model.gradient_checkpointing=false'];
  const short = job(860, ...given);
  const plan = planMemory(short);
  const [first, second] = waysToFit(short, plan);
  expect(first?.remedies.map(({ set }) => set)).toEqual(['actor.ppo_max_token_len=1024']);
  expect(second?.remedies.map(({ set }) => set)).toEqual(['model.gradient_checkpointing=true']);
  for (const way of waysToFit(short, plan)) expect(way.peakBytes).toBeLessThanOrEqual(short.budgetBytes);
  expect(() => refuseUnlessItFits(short, plan)).toThrow(
    expect.objectContaining({
      code: 'ARCHER_E_OOM',
      message: expect.stringMatching(
        /activations 1\.0 GiB.*moments 200\.0 MiB.*--set actor\.ppo_max_token_len=1024 \(/s,
      ),
    }),
  );
  expect(() => refuseUnlessItFits(job(1e6), planMemory(job(1e6)))).not.toThrow();
});

test('nothing helps where the weights alone are too many, and a cache below one sequence is refused by name', () => {
  const tiny = job(50);
  expect(waysToFit(tiny, planMemory(tiny))).toEqual([]);
  expect(() => refuseUnlessItFits(tiny, planMemory(tiny))).toThrow('smaller model');
  const cache = job(1e6, `rollout.kv_budget_bytes=${17 * mib}`);
  expect(() => refuseUnlessItFits(cache, planMemory(cache))).toThrow('rollout.kv_budget_bytes');
});
