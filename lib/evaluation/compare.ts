// Two finished evaluations of the same problems: the difference of avg@n with the interval of the PAIRED difference.
// Each resample draws problems once and takes both models' scores on them, so that what makes a problem hard for both
// cancels out.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { bootstrapIntervals, groupedInterval, type Interval } from '../algorithm/pass-at-k.js';
import { ArcherError } from '../errors.js';
import type { PassRateLine } from './results.js';
import { intervalText, table } from './summary.js';

export interface ComparedBenchmark {
  name: string;
  problems: number;
  /** avg@n of both, and second − first. */
  first: Interval;
  second: Interval;
  difference: Interval;
}

export interface Comparison {
  benchmarks: ComparedBenchmark[];
  /** Mean over benchmarks of the differences. */
  difference: Interval;
}

/**
 * @param folders --out folders of two finished evaluations
 * @throws ARCHER_E_DATA where one is not finished, or their problems differ
 */
export async function compareEvaluations(folders: [string, string], seed: number): Promise<Comparison> {
  const [a, b] = await Promise.all(folders.map(readRates));
  const keys = [...new Set([...a!.keys(), ...b!.keys()])];
  const alone = keys.find((key) => !a!.has(key) || !b!.has(key));
  if (alone !== undefined) {
    const [has, lacks] = a!.has(alone) ? folders : [folders[1], folders[0]];
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${has} has the problem ${alone}, ${lacks} has not: a paired comparison needs the same problems in both.`,
    );
  }
  const names = [...new Set([...a!.values()].map(({ benchmark }) => benchmark))];
  const columns = names.map((name) => {
    const own = keys.filter((key) => a!.get(key)!.benchmark === name);
    const first = own.map((key) => a!.get(key)!.score);
    const second = own.map((key) => b!.get(key)!.score);
    return { name, first, second, difference: second.map((score, i) => score - first[i]!) };
  });
  return {
    benchmarks: columns.map(({ name, ...scores }) => {
      const [first, second, difference] = bootstrapIntervals([scores.first, scores.second, scores.difference], {
        seed,
      });
      return { name, problems: scores.first.length, first: first!, second: second!, difference: difference! };
    }),
    difference: groupedInterval(
      columns.map(({ difference }) => difference),
      { seed },
    ),
  };
}

/** By benchmark, row and content of the problem: another problem in the same place is not the same. */
async function readRates(folder: string): Promise<Map<string, PassRateLine>> {
  let text: string;
  try {
    text = await readFile(join(folder, 'pass_rates.jsonl'), 'utf8');
  } catch (error) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${folder} holds no finished evaluation (pass_rates.jsonl cannot be read): run \`archer-native eval --out ${folder}\` to its end.`,
      { cause: error },
    );
  }
  const lines = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as PassRateLine);
  return new Map(lines.map((line) => [`${line.benchmark}/${line.index} (${line.prompt_id})`, line]));
}

export function comparisonTable({ benchmarks, difference }: Comparison): string {
  const rows = benchmarks.map((one) => [
    one.name,
    String(one.problems),
    intervalText(one.first),
    intervalText(one.second),
    intervalText(one.difference),
  ]);
  if (benchmarks.length > 1) rows.push(['mean over benchmarks', '', '', '', intervalText(difference)]);
  return table(['benchmark', 'problems', 'first avg', 'second avg', 'difference (paired)'], rows);
}
