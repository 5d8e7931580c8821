// A run that cannot fit is refused before it starts, with the two cheapest ways to make it fit. They are found by trying:
// every combination of remedies, in the order of what it costs.
import { ArcherError } from '../errors.js';
import { isUniform, type ResolvedConfig } from '../config/index.js';
import { estimateMemory, type MemoryChoices, type MemoryJob, type MemoryPlan } from './memory-plan.js';
import { bytesText } from './memory-report.js';

interface Remedy {
  /** As on the command line after --set. */
  set: string;
  /** Rough share of a step's time, or far more where the result is another one: for the order alone. */
  cost: number;
  apply: (choices: MemoryChoices) => MemoryChoices;
}

/** What could still be changed, the configuration's own words included. */
function remediesFor(job: MemoryJob, { choices, kv }: MemoryPlan): Remedy[] {
  const remedies: Remedy[] = [];
  for (const tokens of [1024, 256]) {
    if (choices.microBatchTokens <= tokens) continue;
    const cost = tokens === 1024 ? 0.05 : 0.2;
    remedies.push({
      set: `actor.ppo_max_token_len=${tokens}`,
      cost,
      apply: (now) => ({ ...now, microBatchTokens: Math.min(now.microBatchTokens, tokens) }),
    });
  }
  if (choices.kvBudgetBytes === 0 || choices.kvBudgetBytes > kv.group) {
    remedies.push({
      set: `rollout.kv_budget_bytes=${kv.group}`,
      cost: 0.3,
      apply: (now) => ({ ...now, kvBudgetBytes: kv.group }),
    });
  }
  if (!choices.gradientCheckpointing) {
    remedies.push({
      set: 'model.gradient_checkpointing=true',
      cost: 0.25,
      apply: (now) => ({ ...now, gradientCheckpointing: true }),
    });
  }
  if (choices.dtype === 'float32') {
    remedies.push({ set: 'model.dtype=bfloat16', cost: 1, apply: (now) => ({ ...now, dtype: 'bfloat16' }) });
  }
  if (choices.hasReference) {
    remedies.push({ set: withoutKl(job.config), cost: 2, apply: (now) => ({ ...now, hasReference: false }) });
  }
  const half = Math.ceil(choices.maxResponseLength / 2);
  if (half >= 64) {
    remedies.push({
      set: `data.max_response_length=${half}`,
      cost: 4,
      apply: (now) => ({ ...now, maxResponseLength: half }),
    });
  }
  return remedies;
}

function withoutKl(config: ResolvedConfig): string {
  if (isUniform(config)) return 'actor.kl_loss_coef=0';
  const keys = ['low_entropy_kl_loss_coef', 'high_entropy_kl_loss_coef'] as const;
  return keys
    .filter((key) => config.actor[key] !== 0)
    .map((key) => `actor.${key}=0`)
    .join(' --set ');
}

interface Way {
  remedies: Remedy[];
  cost: number;
  peakBytes: number;
}

const keyOf = ({ set }: Remedy) => set.split('=')[0];

/** Combinations that fit, the cheapest first; none that sets all keys of a cheaper one, and more or further. */
export function waysToFit(job: MemoryJob, plan: MemoryPlan): Way[] {
  const remedies = remediesFor(job, plan);
  const combinations = Array.from({ length: 2 ** remedies.length - 1 }, (_, i) => {
    const chosen = remedies.filter((_, bit) => ((i + 1) >> bit) & 1);
    return { remedies: chosen, cost: chosen.reduce((sum, { cost }) => sum + cost, 0) };
  }).sort((a, b) => a.cost - b.cost);
  const ways: Way[] = [];
  for (const one of combinations) {
    if (
      ways.some((way) => way.remedies.every((remedy) => one.remedies.some((other) => keyOf(other) === keyOf(remedy))))
    )
      continue;
    const { peakBytes } = estimateMemory(
      job,
      one.remedies.reduce((now, { apply }) => apply(now), plan.choices),
    );
    if (peakBytes <= job.budgetBytes) ways.push({ ...one, peakBytes });
  }
  return ways;
}

/** Undefined where it fits; else the bytes by part, and the two cheapest ways to make it fit. */
export function whyItDoesNotFit(job: MemoryJob, plan: MemoryPlan): string | undefined {
  const { kvBudgetBytes } = plan.choices;
  if (kvBudgetBytes > 0 && kvBudgetBytes < plan.kv.sequence) {
    return (
      `rollout.kv_budget_bytes = ${kvBudgetBytes} does not hold the keys and values of the longest sequence, ` +
      `${plan.kv.sequence} bytes: raise it, or lower data.max_response_length.`
    );
  }
  if (plan.peakBytes <= plan.budgetBytes) return undefined;
  const parts = plan.parts
    .filter(({ phase }) => phase === undefined || phase === plan.peakPhase)
    .sort((a, b) => b.bytes - a.bytes)
    .map(({ name, bytes }) => `${name} ${bytesText(bytes)}`);
  const ways = waysToFit(job, plan)
    .slice(0, 2)
    .map(
      ({ remedies, peakBytes }) => `${remedies.map(({ set }) => `--set ${set}`).join(' ')} (${bytesText(peakBytes)})`,
    );
  const remedy =
    ways.length > 0
      ? `It fits with ${ways.join(', or with ')}.`
      : 'No setting makes it fit: take a smaller model or a larger machine.';
  return (
    `The run needs ${bytesText(plan.peakBytes)} (${plan.peakPhase}) and may take ${bytesText(plan.budgetBytes)} ` +
    `(memory_budget): ${parts.join(', ')}. ${remedy}`
  );
}

/** @throws ARCHER_E_OOM */
export function refuseUnlessItFits(job: MemoryJob, plan: MemoryPlan): void {
  const refusal = whyItDoesNotFit(job, plan);
  if (refusal) throw new ArcherError('ARCHER_E_OOM', refusal);
}
