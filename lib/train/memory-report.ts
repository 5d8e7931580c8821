// The memory plan for people: by part, by phase, and what was chosen.
import type { MemoryPlan } from './memory-plan.js';

export function bytesText(value: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = value < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  return `${(value / 2 ** (10 * power)).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}

/** What -> value with its unit. */
export type Rows = Record<string, string>;

export function memoryRows(plan: MemoryPlan): Rows {
  return Object.fromEntries([
    ...plan.parts.map(({ name, bytes, phase }) => [phase === undefined ? name : `${phase}: ${name}`, bytesText(bytes)]),
    ...Object.entries(plan.phases).map(([phase, bytes]) => [
      `in all while ${verbs[phase as keyof typeof verbs]}`,
      `${bytesText(bytes)}${phase === plan.peakPhase ? '  <- the peak' : ''}`,
    ]),
    ['may take', bytesText(plan.budgetBytes)],
  ]);
}

const verbs = { sampling: 'sampling', scoring: 'scoring', update: 'updating' };

export function choiceRows({ choices }: MemoryPlan): Rows {
  const { microBatchTokens, gradientCheckpointing, keepBuffers, kvBudgetBytes, hasReference, dtype } = choices;
  return {
    'tokens per micro-batch': String(microBatchTokens),
    'gradient checkpointing': gradientCheckpointing ? 'on' : 'off',
    buffers: keepBuffers ? 'kept between phases' : 'given back after each phase',
    'KV cache':
      kvBudgetBytes > 0 ? `at most ${bytesText(kvBudgetBytes)}; sequences without room wait` : 'as large as it grows',
    'reference model': hasReference
      ? `held once, in ${dtype}`
      : 'no copy: every KL coefficient is 0, or adapters lie over it',
  };
}
