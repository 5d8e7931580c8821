// Before a run: the verifier must give 1 to the gold answers of a sample of the data and 0 to a wrong one. A verifier
// that returns 0 for everything, or 1 for everything, trains for hours without anybody noticing; here it costs a second.

import { ArcherError, messageOf } from '../errors.js';
import type { Dataset } from '../data/dataset.js';
import type { Row } from '../data/types.js';
import { replayProgram } from './code/replay.js';
import type { RewardInput, Scorer, Verdict } from './types.js';

export interface SelfTestOptions {
  /** Rows to try, spread evenly over the data set. Default 12. */
  rows?: number;
  signal?: AbortSignal;
}

export interface SelfTestReport {
  /** Rows whose gold answer was tried. */
  rows: number;
}

const wrongAnswer = '-987654321.123';
const wrongProgram = '```python\nprint("-987654321.123")\n```';

/**
 * Tries a scorer on the data set's own gold answers.
 *
 * A built-in verifier must give exactly 1 to `\boxed{gold}` and 0 to a wrong answer. A custom function may want another
 * form, and may give other numbers: of `\boxed{gold}` and the bare gold one must be `ok`, with a score above that of the
 * wrong answer. For programs the gold answer is one that knows the tests by heart (code/replay.ts); where a row has test
 * code instead, a wrong program must be `wrong`.
 *
 * @param options.custom the scorer is a function of the user's
 * @throws ArcherError ARCHER_E_REWARD naming the row, what was tried and what came back.
 */
export async function selfTestReward(
  scorer: Scorer,
  dataset: Dataset,
  options: SelfTestOptions & { custom?: boolean } = {},
): Promise<SelfTestReport> {
  const { rows = 12, custom = false, signal } = options;
  const sample = spread(dataset.rows, rows).map((i) => dataset.get(i));
  const tries = sample.map((row) => {
    const isCode = scorer.verifierFor(row.dataSource) === 'code';
    const responses = isCode
      ? [...goldPrograms(row, scorer.description), wrongProgram]
      : [...goldResponses(row, custom), `\\boxed{${wrongAnswer}}`];
    return responses.map((response) => inputOf(row, response));
  });
  const verdicts = await scorer.score(tries.flat(), { signal });

  let at = 0;
  tries.forEach((inputs, i) => {
    const own = verdicts.slice(at, at + inputs.length);
    at += inputs.length;
    checkRow(sample[i] as Row, inputs, own, custom, scorer.description);
  });
  return { rows: sample.length };
}

function goldResponses(row: Row, custom: boolean): string[] {
  const gold = Array.isArray(row.groundTruth) ? (row.groundTruth[0] ?? '') : row.groundTruth;
  const boxed = gold.includes('\\boxed') || gold.includes('\\fbox') ? gold : `\\boxed{${gold}}`;
  return custom ? [boxed, gold] : [boxed];
}

/** Empty for test code: a row holds no solution of it. The wrong program still shows that the tests run. */
function goldPrograms(row: Row, scorer: string): string[] {
  try {
    const program = replayProgram(row.groundTruth, row.extraInfo);
    return program === undefined ? [] : [`\`\`\`python\n${program}\n\`\`\``];
  } catch (error) {
    throw failure(row, scorer, `cannot read the tests: ${messageOf(error)}`);
  }
}

function checkRow(row: Row, inputs: RewardInput[], verdicts: Verdict[], custom: boolean, scorer: string): void {
  const wrong = verdicts.at(-1) as Verdict;
  const golds = verdicts.slice(0, -1);
  if (golds.length === 0) {
    if (wrong.outcome === 'wrong') return;
    throw failure(row, scorer, `cannot judge a wrong program: ${show(wrong)}`);
  }
  const best = golds.reduce((a, b) => (b.score > a.score ? b : a));
  const accepted = custom ? golds.some((verdict) => verdict.outcome === 'ok') : best.score === 1;
  if (!accepted) {
    const shown = golds.map((verdict, i) => `${shortText(inputs[i]?.response)} → ${show(verdict)}`).join(', ');
    throw failure(row, scorer, `refuses the row's own gold answer: ${shown}`);
  }
  if (custom ? wrong.score >= best.score : wrong.score !== 0) {
    throw failure(row, scorer, `rewards a wrong answer: ${shortText(inputs.at(-1)?.response)} → ${show(wrong)}`);
  }
}

function failure(row: Row, scorer: string, problem: string): ArcherError {
  return new ArcherError(
    'ARCHER_E_REWARD',
    `The reward (${scorer}) ${problem} (${row.origin.file}, line ${row.origin.line}, data source ${row.dataSource}, ground truth ${shortText(row.groundTruth)}). Correct the reward or the data, or set reward.self_test: off.`,
  );
}

function shortText(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}

function show(verdict: Verdict): string {
  return `${verdict.outcome} ${verdict.score}${verdict.message === undefined ? '' : ` (${verdict.message})`}`;
}

function inputOf(row: Row, response: string): RewardInput {
  return {
    prompt: row.prompt.at(-1)?.content ?? '',
    response,
    groundTruth: row.groundTruth,
    extraInfo: row.extraInfo,
    dataSource: row.dataSource,
  };
}

/** `count` whole numbers spread evenly over 0 … size−1. */
function spread(size: number, count: number): number[] {
  const n = Math.min(size, count);
  return Array.from({ length: n }, (_, i) => Math.floor((i * size) / n));
}
