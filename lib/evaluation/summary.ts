// From results to numbers: per benchmark avg@n, pass@k, maj@n with intervals, lengths and outcomes; over all of them the
// mean of avg@n, every benchmark counting once, as the paper's tables average.
import { evaluationMetrics, groupedInterval, type Interval, mean } from '../algorithm/pass-at-k.js';
import { outcomeOf } from '../train/evaluate.js';
import type { Benchmark } from './benchmarks.js';
import type { AnswerResult, ProblemResult } from './results.js';

export interface BenchmarkSummary {
  name: string;
  problems: number;
  n: number;
  temperature: number;
  top_p: number;
  max_response_length: number;
  /** avg@n, pass@k, maj@n, each with <name>/ci_low and <name>/ci_high: 95 %, bootstrap over problems. */
  metrics: Record<string, number>;
  /** Tokens; null where a server counts none. */
  mean_response_length: number | null;
  /** Share of responses that were cut at the limit. */
  truncated: number;
  /** Responses by outcome. */
  outcomes: Record<string, number>;
}

export interface Summary {
  model: string;
  seed: number;
  benchmarks: BenchmarkSummary[];
  total: Pick<BenchmarkSummary, 'problems' | 'mean_response_length' | 'truncated' | 'outcomes'> & {
    responses: number;
    /** Mean over benchmarks of avg@n. */
    avg: Interval;
  };
}

export interface SummaryOptions {
  model: string;
  seed: number;
  /** val.metrics */
  metrics: string[];
  benchmarks: readonly Pick<Benchmark, 'name' | 'sampling'>[];
  results: ReadonlyMap<string, ProblemResult[]>;
}

export function summarize({ model, seed, metrics, benchmarks, results }: SummaryOptions): Summary {
  const groups = benchmarks.map(({ name, sampling }) => ({ name, sampling, problems: results.get(name) ?? [] }));
  const problems = groups.flatMap((group) => group.problems);
  return {
    model,
    seed,
    benchmarks: groups.map(({ name, sampling, problems }) => ({
      name,
      problems: problems.length,
      n: sampling.n,
      temperature: sampling.temperature,
      top_p: sampling.topP,
      max_response_length: sampling.maxNewTokens,
      metrics: evaluationMetrics(problems.map(outcomeOf), { metrics: metricsFor(problems, metrics), seed }),
      ...countsOf(problems.flat()),
    })),
    total: {
      problems: problems.length,
      responses: problems.flat().length,
      avg: groupedInterval(
        groups.map((group) => group.problems.map((answers) => mean(answers.map(({ verdict }) => verdict.score)))),
        { seed },
      ),
      ...countsOf(problems.flat()),
    },
  };
}

/** maj@n means nothing where nobody votes, as with programs. */
function metricsFor(problems: ProblemResult[], metrics: string[]): string[] {
  const hasVotes = problems.flat().some(({ vote }) => vote !== null);
  return metrics.filter((metric) => hasVotes || metric !== 'maj@n');
}

function countsOf(answers: AnswerResult[]): Pick<BenchmarkSummary, 'mean_response_length' | 'truncated' | 'outcomes'> {
  const outcomes: Record<string, number> = {};
  for (const { verdict } of answers) outcomes[verdict.outcome] = (outcomes[verdict.outcome] ?? 0) + 1;
  const lengths = answers.flatMap(({ tokens }) => (tokens === null ? [] : [tokens]));
  return {
    mean_response_length: lengths.length === 0 ? null : mean(lengths),
    truncated: answers.filter(({ finish }) => finish === 'length').length / answers.length,
    outcomes: Object.fromEntries(Object.entries(outcomes).sort(([a], [b]) => (a < b ? -1 : 1))),
  };
}

const percent = (value: number) => (value * 100).toFixed(1);

/** `12.5 (10.1 to 14.9)`, in percent. */
export function intervalText({ mean: middle, low, high }: Interval): string {
  return `${percent(middle)} (${percent(low)} to ${percent(high)})`;
}

/** The summary as Markdown: one table of metrics, one of everything else. */
export function summaryTable({ model, benchmarks, total }: Summary): string {
  const metrics = benchmarks.flatMap(({ name, metrics: values }) =>
    Object.keys(values)
      .filter((metric) => !metric.includes('/'))
      .map((metric) => {
        const interval = {
          mean: values[metric]!,
          low: values[`${metric}/ci_low`]!,
          high: values[`${metric}/ci_high`]!,
        };
        return [name, metric, intervalText(interval)];
      }),
  );
  if (benchmarks.length > 1) metrics.push(['mean over benchmarks', 'avg', intervalText(total.avg)]);
  const row = (name: string, n: string, one: BenchmarkSummary | Summary['total']) => [
    name,
    String(one.problems),
    n,
    one.mean_response_length === null ? 'unknown' : one.mean_response_length.toFixed(1),
    percent(one.truncated),
    Object.entries(one.outcomes)
      .map(([outcome, count]) => `${outcome} ${count}`)
      .join(', '),
  ];
  const counts = benchmarks.map((one) => row(one.name, String(one.n), one));
  if (benchmarks.length > 1) counts.push(row('total', '', total));
  return [
    `Model: ${model}. In percent, with 95 % bootstrap intervals over problems.`,
    table(['benchmark', 'metric', 'value'], metrics),
    table(['benchmark', 'problems', 'n', 'mean tokens', 'cut at the limit, %', 'outcomes'], counts),
  ].join('\n\n');
}

/** A Markdown table whose columns also line up as text. */
export function table(head: string[], rows: string[][]): string {
  const widths = head.map((title, column) =>
    Math.max(...[head, ...rows].map((row) => row[column]!.length), title.length),
  );
  const line = (cells: string[]) => `| ${cells.map((cell, column) => cell.padEnd(widths[column]!)).join(' | ')} |\n`;
  return [line(head), `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|\n`, ...rows.map(line)].join('');
}
