import { createReadStream } from 'node:fs';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import type { ResolvedConfig } from '../config/index.js';
import { ArcherError, messageOf } from '../errors.js';
import { readLines } from '../data/lines.js';
import { readParquet } from '../data/parquet.js';
import { table } from '../evaluation/summary.js';
import { isSystemError } from '../io-error.js';
import { parseRewardRow, type RewardRow } from '../reward/rows.js';
import type { Scorer, Verdict } from '../reward/types.js';
import { makeScorer } from '../train/setup.js';
import { type CommonOptions, loadFor, runCommand, toNumber, withCommonOptions } from './command.js';

interface Options extends CommonOptions {
  name?: ResolvedConfig['reward']['name'];
  path?: string;
  timeout?: number;
}

interface ScoredRow {
  id: RewardRow['id'];
  verdict: Verdict;
  ms: number;
}

export function addReward(program: Command): void {
  withCommonOptions(
    program
      .command('reward')
      .argument(
        '<file>',
        'JSON lines or parquet: id, prompt, response, ground_truth [, data_source, extra_info]; - is standard input',
      )
      .description('score responses without a model: the table of outcomes, or with --json a line for every row'),
  )
    .option('--name <verifier>', 'built-in verifier; without one each row’s data_source chooses (reward.name)')
    .option('--path <module>', 'module whose default export scores (reward.path)')
    .option('--timeout <seconds>', 'time for one response (reward.timeout_seconds)', toNumber)
    .action((file: string, options: Options) =>
      runCommand(options, ({ signal }) => scoreFile(file, options, signal), 'Interrupted.'),
    );
}

async function scoreFile(file: string, options: Options, signal: AbortSignal): Promise<void> {
  const { config } = loadFor(undefined, options, {
    reward: { name: options.name, path: options.path, timeout_seconds: options.timeout },
  });
  const width = config.reward.workers || availableParallelism();
  const alone = { ...config, reward: { ...config.reward, workers: 1 } };
  const scorers = await Promise.all(Array.from({ length: width }, () => makeScorer(alone, undefined)));
  const tally = new Map<string, number[]>();
  let total = 0;
  try {
    for await (const { id, verdict, ms } of scoreInOrder(readRows(file), scorers, signal)) {
      if (options.json) {
        const line = { id, outcome: verdict.outcome, score: verdict.score, ms: Number(ms.toFixed(3)) };
        if (!process.stdout.write(`${JSON.stringify(line)}\n`)) await once(process.stdout, 'drain');
      } else {
        const times = tally.get(verdict.outcome) ?? [];
        times.push(ms);
        tally.set(verdict.outcome, times);
        total += verdict.score;
      }
    }
  } catch (error) {
    if (!isSystemError(error)) throw error;
    throw new ArcherError('ARCHER_E_DATA', `${file} cannot be read: ${messageOf(error)}.`, { cause: error });
  } finally {
    await Promise.all(scorers.map((scorer) => scorer.dispose()));
  }
  if (!options.json) process.stdout.write(outcomeTable(tally, total));
}

/** Rows as they come: what has been scored is not kept. */
async function* readRows(file: string): AsyncGenerator<RewardRow> {
  if (file.endsWith('.parquet')) {
    const { rows, read } = await readParquet(file, () => {});
    for (let i = 0; i < rows; ++i) yield parseRewardRow(read(i), { file, line: i + 1 });
    return;
  }
  const name = file === '-' ? 'standard input' : file;
  for await (const { bytes, line } of readLines(file === '-' ? process.stdin : createReadStream(file))) {
    const text = bytes.toString('utf8').trim();
    if (text !== '') yield parseRewardRow(parseJson(text, name, line), { file: name, line });
  }
}

function parseJson(text: string, file: string, line: number): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ArcherError('ARCHER_E_DATA', `${file}, line ${line}: not a JSON value (${messageOf(error)}).`, {
      cause: error,
    });
  }
}

/** As many rows at a time as there are scorers: each row has one for itself, so that its time is its own. */
async function* scoreInOrder(
  rows: AsyncIterable<RewardRow>,
  scorers: Scorer[],
  signal: AbortSignal,
): AsyncGenerator<ScoredRow> {
  const score = async ({ id, input }: RewardRow, scorer: Scorer): Promise<ScoredRow> => {
    const started = performance.now();
    const [verdict] = await scorer.score([input], { signal });
    return { id, verdict: verdict!, ms: performance.now() - started };
  };
  const underWay: Promise<ScoredRow>[] = [];
  let count = 0;
  for await (const row of rows) {
    const scored = score(row, scorers[count % scorers.length]!);
    count += 1;
    // Whoever waits for it hears of a failure; until then it must not end the process.
    scored.catch(() => {});
    underWay.push(scored);
    if (underWay.length >= scorers.length) yield await underWay.shift()!;
  }
  for (const scored of underWay) yield await scored;
}

function outcomeTable(tally: Map<string, number[]>, total: number): string {
  const rows = [...tally].sort(([a], [b]) => (a < b ? -1 : 1));
  const count = rows.reduce((sum, [, times]) => sum + times.length, 0);
  const line = (name: string, times: number[]) => {
    const sorted = Float64Array.from(times).sort();
    const median = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0;
    const share = `${((100 * sorted.length) / Math.max(count, 1)).toFixed(1)} %`;
    return [name, String(sorted.length), share, median.toFixed(2), (sorted.at(-1) ?? 0).toFixed(2)];
  };
  const lines = rows.map(([name, times]) => line(name, times));
  lines.push(
    line(
      'all',
      rows.flatMap(([, times]) => times),
    ),
  );
  return `${table(['outcome', 'rows', 'share', 'median ms', 'max ms'], lines)}Mean score ${(total / Math.max(count, 1)).toFixed(4)}\n`;
}
