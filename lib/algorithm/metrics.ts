// The numbers of a training step under verl's names, and those that nobody else logs. docs/metrics.md has the formulas.
// A mean over nothing is left out, never 0.

import type { GroupKind } from './group-filter.js';
import { repetitionRate } from './repetition.js';

export { addSums, type StepUpdate, type UpdateNumbers, updateMetrics } from './loss-metrics.js';

export type Metrics = Record<string, number>;

/** name/mean, name/max and name/min of some values; nothing for none. */
export function spread(name: string, values: ArrayLike<number>): Metrics {
  if (values.length === 0) return {};
  let [sum, max, min] = [0, -Infinity, Infinity];
  for (let index = 0; index < values.length; ++index) {
    const value = values[index]!;
    sum += value;
    if (value > max) max = value;
    if (value < min) min = value;
  }
  return { [`${name}/mean`]: sum / values.length, [`${name}/max`]: max, [`${name}/min`]: min };
}

export const outcomeNames = ['ok', 'wrong', 'parse_error', 'timeout', 'crash'] as const;

/** A sampled group: one entry per response. */
export interface GroupNumbers {
  /** The verifier's. */
  scores: readonly number[];
  /** With the overlong penalty, where it is on. */
  rewards: readonly number[];
  outcomes: readonly string[];
}

/** critic/score, critic/rewards, batch/solve_* and reward/* over every group that was sampled, kept or not. */
export function rewardMetrics(groups: readonly (GroupNumbers & { kind: GroupKind })[]): Metrics {
  const metrics: Metrics = {
    ...spread(
      'critic/score',
      groups.flatMap((group) => group.scores),
    ),
    ...spread(
      'critic/rewards',
      groups.flatMap((group) => group.rewards),
    ),
    'batch/solve_none': groups.filter((group) => group.kind === 'solve_none').length,
    'batch/solve_all': groups.filter((group) => group.kind === 'solve_all').length,
  };
  for (const name of outcomeNames) {
    metrics[`reward/${name}`] = groups.reduce(
      (sum, { outcomes }) => sum + outcomes.filter((outcome) => outcome === name).length,
      0,
    );
  }
  return metrics;
}

export interface ResponseNumbers {
  /** Tokens. */
  promptLength: number;
  length: number;
  text: string;
  truncated: boolean;
  right: boolean;
}

/** response_length/*, prompt_length/*, batch/truncated and the repetition rate over every response that was sampled. */
export function lengthMetrics(responses: readonly ResponseNumbers[]): Metrics {
  const truncated = responses.filter((response) => response.truncated).length;
  const metrics: Metrics = {
    ...spread(
      'response_length',
      responses.map((response) => response.length),
    ),
    ...spread(
      'prompt_length',
      responses.map((response) => response.promptLength),
    ),
    'batch/truncated': truncated,
  };
  if (responses.length > 0) metrics['response_length/clip_ratio'] = truncated / responses.length;
  const rates = responses.map(({ text, right }) => ({ rate: repetitionRate(text), right }));
  const add = (name: string, some: typeof rates) => {
    if (some.length > 0) metrics[name] = some.reduce((sum, { rate }) => sum + rate, 0) / some.length;
  };
  add('response/repetition_rate', rates);
  add(
    'response/repetition_rate_right',
    rates.filter(({ right }) => right),
  );
  add(
    'response/repetition_rate_wrong',
    rates.filter(({ right }) => !right),
  );
  return metrics;
}
