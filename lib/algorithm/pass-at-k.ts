// Evaluation numbers (archer.md part 6): unbiased pass@k, avg@n, maj@n, and bootstrap intervals over problems.

import { ArcherError } from '../errors.js';
import { keyedIndices } from './philox.js';

/**
 * pass@k = 1 − C(n−c, k) / C(n, k) as the product 1 − Π_{i=n−c+1..n} (1 − k/i): unbiased, and no large factorial.
 * @throws ArcherError ARCHER_E_CONFIG where k is not in 1 … n.
 */
export function passAtK(n: number, c: number, k: number): number {
  if (!(k >= 1 && k <= n)) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      `pass@${k} needs at least ${k} responses per problem, and there are ${n}: raise val.n.`,
    );
  }
  let allWrong = 1;
  for (let i = n - c + 1; i <= n; ++i) allWrong *= Math.max(0, 1 - k / i);
  return 1 - allWrong;
}

/** The k that are reported: 1, 2, 4, … and n itself. */
export function reportedKs(n: number): number[] {
  const ks: number[] = [];
  for (let k = 1; k < n; k *= 2) ks.push(k);
  return [...ks, n];
}

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let index = 0; index < values.length; ++index) sum += values[index]!;
  return sum / values.length;
}

/** A key under which equal answers are equal; null or undefined where there is none. */
export type Vote = string | number | null | undefined;

/**
 * The response that the majority names: the earliest one with the most frequent answer, ties to the answer that came
 * first. −1: no votes.
 */
export function majorityIndex(votes: readonly Vote[]): number {
  const tally = new Map<Vote, { first: number; count: number }>();
  votes.forEach((vote, index) => {
    if (vote === undefined || vote === null) return;
    const entry = tally.get(vote);
    if (entry) ++entry.count;
    else tally.set(vote, { first: index, count: 1 });
  });
  let winner = { first: -1, count: 0 };
  for (const entry of tally.values()) if (entry.count > winner.count) winner = entry;
  return winner.first;
}

/** The q-quantile of sorted values, linear between order statistics. */
function quantile(sorted: ArrayLike<number>, q: number): number {
  const position = q * (sorted.length - 1);
  const below = Math.floor(position);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below]! + (position - below) * (sorted[above]! - sorted[below]!);
}

export interface Interval {
  mean: number;
  low: number;
  high: number;
}

export interface BootstrapOptions {
  seed: number;
  /** Tells draws of one seed apart. Default 0. */
  stratum?: number;
  /** Default 2000. */
  resamples?: number;
  /** Default 0.95. */
  level?: number;
}

/**
 * The mean over problems with a percentile bootstrap interval, for several metrics of the same problems: each resample
 * draws problems (not responses: those of one problem are not independent) and serves all of them. Same seed, same
 * intervals.
 * @param columns one array per metric, with a value per problem
 */
export function bootstrapIntervals(columns: readonly ArrayLike<number>[], options: BootstrapOptions): Interval[] {
  const { level = 0.95 } = options;
  return bootstrapMeans(columns, options).map((means, which) => intervalOf(mean(columns[which]!), means, level));
}

/**
 * The mean over groups of problems (benchmarks) of each group's mean, with its interval: every group is resampled by
 * itself.
 */
export function groupedInterval(groups: readonly ArrayLike<number>[], options: BootstrapOptions): Interval {
  const means = groups.map((values, stratum) => bootstrapMeans([values], { ...options, stratum })[0]!);
  const together = means[0]!.map((_, round) => mean(means.map((column) => column[round]!)));
  return intervalOf(mean(groups.map((values) => mean(values))), together, options.level ?? 0.95);
}

function intervalOf(middle: number, means: Float64Array, level: number): Interval {
  const sorted = means.sort();
  return { mean: middle, low: quantile(sorted, (1 - level) / 2), high: quantile(sorted, (1 + level) / 2) };
}

/** The means of every resample, by column. */
function bootstrapMeans(columns: readonly ArrayLike<number>[], options: BootstrapOptions): Float64Array[] {
  const { seed, stratum = 0, resamples = 2000 } = options;
  const count = columns[0]?.length ?? 0;
  if (count === 0) throw new ArcherError('ARCHER_E_DATA', 'There is no problem to evaluate: the data set is empty.');
  const means = columns.map(() => new Float64Array(resamples));
  const drawn = new Uint32Array(count);
  for (let round = 0; round < resamples; ++round) {
    keyedIndices(drawn, count, { seed, stream: 'bootstrap', a: round, b: stratum });
    columns.forEach((column, which) => {
      let sum = 0;
      for (let draw = 0; draw < count; ++draw) sum += column[drawn[draw]!]!;
      means[which]![round] = sum / count;
    });
  }
  return means;
}

/** All n responses to one problem. */
export interface ProblemOutcome {
  scores: readonly number[];
  /** For maj@n. */
  votes: readonly Vote[];
  /** Whether each is right, which pass@k and maj@n count; default: its score is above 0. */
  correct?: readonly boolean[];
}

export interface EvaluationOptions extends BootstrapOptions {
  /** val.metrics: avg@n, pass@k, maj@n. */
  metrics: readonly string[];
}

/**
 * avg@n, pass@1, pass@2, pass@4, … pass@n and maj@n (n as a number), each with <name>/ci_low and <name>/ci_high.
 * Every problem must have the same number of responses.
 */
export function evaluationMetrics(
  problems: readonly ProblemOutcome[],
  options: EvaluationOptions,
): Record<string, number> {
  const n = problems[0]?.scores.length ?? 0;
  const odd = problems.find(({ scores }) => scores.length !== n);
  if (odd !== undefined) {
    throw new ArcherError('ARCHER_E_INTERNAL', `One problem has ${odd.scores.length} responses, the first one ${n}.`);
  }
  const judged = problems.map(({ scores, votes, correct }) => ({
    scores,
    correct: correct ?? scores.map((score) => score > 0),
    majority: majorityIndex(votes),
  }));
  const columns = new Map<string, number[]>();
  if (options.metrics.includes('avg@n'))
    columns.set(
      `avg@${n}`,
      judged.map(({ scores }) => mean(scores)),
    );
  if (options.metrics.includes('pass@k')) {
    const counts = judged.map(({ correct }) => correct.filter(Boolean).length);
    for (const k of reportedKs(n))
      columns.set(
        `pass@${k}`,
        counts.map((count) => passAtK(n, count, k)),
      );
  }
  if (options.metrics.includes('maj@n')) {
    columns.set(
      `maj@${n}`,
      judged.map(({ correct, majority }) => (correct[majority] ? 1 : 0)),
    );
  }
  const result: Record<string, number> = {};
  if (columns.size === 0) return result;
  const intervals = bootstrapIntervals([...columns.values()], options);
  [...columns.keys()].forEach((name, which) => {
    const { mean: middle, low, high } = intervals[which]!;
    result[name] = middle;
    result[`${name}/ci_low`] = low;
    result[`${name}/ci_high`] = high;
  });
  return result;
}
