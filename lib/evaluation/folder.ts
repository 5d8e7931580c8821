// The folder of one evaluation: evaluation.json says what is measured, responses.jsonl grows by whole rounds, the rest is
// written at the end. A killed evaluation goes on behind its last whole round: the rounds that follow are then cut as in
// an uninterrupted one, so that even arithmetic that depends on the batch gives the same bits.
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, readFile, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../checkpoint/files.js';
import { lockRunFolder, type RunLock } from '../checkpoint/lock.js';
import { readLines } from '../data/lines.js';
import { ArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import { AppendFile } from '../metrics/append-file.js';
import type { JudgedProblem } from '../train/evaluate.js';
import {
  answerResult,
  type PassRateLine,
  type ProblemResult,
  responseId,
  responseLines,
  type ResponseLine,
} from './results.js';
import { type Summary, summaryTable } from './summary.js';

/** What one benchmark will put into responses.jsonl. */
export interface PlannedBenchmark {
  name: string;
  /** Rows of its problems, in order. */
  indices: number[];
  n: number;
  /** Problems in a round. */
  perRound: number;
}

export class EvaluationFolder {
  private constructor(
    readonly path: string,
    private readonly lock: RunLock,
  ) {}

  private responses: AppendFile | undefined;

  /**
   * Makes the folder, or opens one of the same evaluation.
   *
   * @throws ARCHER_E_CONFIG where the folder holds another evaluation, naming what differs; ARCHER_E_IO where another
   *   process writes it
   */
  static async open(path: string, identity: object): Promise<EvaluationFolder> {
    try {
      await mkdir(path, { recursive: true });
    } catch (error) {
      throw ioError('make the folder', path, error, '--out');
    }
    const lock = await lockRunFolder(path);
    try {
      const file = join(path, 'evaluation.json');
      if (existsSync(file)) await checkIdentity(file, identity);
      else await replaceFile(file, `${JSON.stringify(identity, null, 2)}\n`);
      return new EvaluationFolder(path, lock);
    } catch (error) {
      await lock.release();
      throw ioError('open the evaluation in', path, error, '--out');
    }
  }

  /** What is done already, by benchmark; cuts responses.jsonl back to its last whole round and opens it for more. */
  async restore(plan: PlannedBenchmark[]): Promise<Map<string, ProblemResult[]>> {
    const file = join(this.path, 'responses.jsonl');
    const done = new Map<string, ProblemResult[]>(plan.map(({ name }) => [name, []]));
    if (existsSync(file)) {
      const bytes = await readRounds(file, plan, done);
      await truncate(file, bytes);
    }
    this.responses = new AppendFile(file);
    return done;
  }

  /** One whole round. */
  append(benchmark: string, round: JudgedProblem[]): void {
    const lines = round.flatMap((judged) => responseLines(benchmark, judged));
    this.responses?.append(Buffer.from(lines.map((line) => `${JSON.stringify(line)}\n`).join('')));
    this.responses?.flush();
  }

  async finish(summary: Summary, rates: PassRateLine[]): Promise<void> {
    const files: [string, string][] = [
      ['pass_rates.jsonl', rates.map((rate) => `${JSON.stringify(rate)}\n`).join('')],
      ['summary.md', summaryTable(summary)],
      ['summary.json', `${JSON.stringify(summary, null, 2)}\n`],
    ];
    for (const [name, text] of files) {
      await replaceFile(join(this.path, name), text).catch((error) => {
        throw ioError('write', join(this.path, name), error, '--out');
      });
    }
  }

  async close(): Promise<void> {
    this.responses?.close();
    await this.lock.release();
  }
}

async function checkIdentity(file: string, identity: object): Promise<void> {
  let found: unknown;
  try {
    found = JSON.parse(await readFile(file, 'utf8'));
  } catch (error) {
    throw new ArcherError('ARCHER_E_CONFIG', `${file} cannot be read as JSON; choose another --out folder.`, {
      cause: error,
    });
  }
  const before = leaves(found);
  const now = leaves(JSON.parse(JSON.stringify(identity)));
  const changed = [...new Set([...before.keys(), ...now.keys()])].filter((key) => before.get(key) !== now.get(key));
  if (changed.length === 0) return;
  const shown = changed
    .slice(0, 3)
    .map((key) => `${key} was ${before.get(key) ?? 'not set'}, is ${now.get(key) ?? 'not set'}`);
  const more = changed.length > 3 ? `, and ${changed.length - 3} more` : '';
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `${file} is of another evaluation: ${shown.join('; ')}${more}. Choose another --out folder, or remove this one.`,
  );
}

/** Dotted key -> value as JSON. */
function leaves(value: unknown, path = ''): Map<string, string> {
  if (typeof value !== 'object' || value === null) return new Map([[path, JSON.stringify(value)]]);
  const entries = Object.entries(value);
  if (entries.length === 0) return new Map([[path, JSON.stringify(value)]]);
  return new Map(entries.flatMap(([key, entry]) => [...leaves(entry, path === '' ? key : `${path}.${key}`)]));
}

/** Reads whole rounds into `done`. @returns where the last one ends, in bytes */
async function readRounds(file: string, plan: PlannedBenchmark[], done: Map<string, ProblemResult[]>): Promise<number> {
  const lines = readLines(createReadStream(file));
  let bytes = 0;
  let round: ProblemResult[] = [];
  for (const { name, index, sample, endsRound } of expectedLines(plan)) {
    const { value: found } = await lines.next();
    if (!found?.complete) break;
    const line = parseLine(found.bytes, file, found.line, responseId(name, index, sample));
    if (sample === 0) round.push([]);
    round.at(-1)?.push(answerResult(line));
    if (endsRound) {
      done.get(name)?.push(...round);
      round = [];
      bytes = found.end;
    }
  }
  await lines.return(undefined);
  return bytes;
}

function* expectedLines(plan: PlannedBenchmark[]) {
  for (const { name, indices, n, perRound } of plan) {
    for (const [i, index] of indices.entries()) {
      const isLastProblem = (i + 1) % perRound === 0 || i + 1 === indices.length;
      for (let sample = 0; sample < n; ++sample) {
        yield { name, index, sample, endsRound: isLastProblem && sample === n - 1 };
      }
    }
  }
}

function parseLine(bytes: Buffer, file: string, line: number, id: string): ResponseLine {
  let value: Partial<ResponseLine> | null = null;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    // Told below with the place.
  }
  if (value?.id === id) return value as ResponseLine;
  throw new ArcherError(
    'ARCHER_E_DATA',
    `${file}, line ${line}: ${id} belongs here, and there is ${value?.id ?? 'no JSON object'}: the file was altered. ` +
      'Choose another --out folder, or remove this one.',
  );
}
