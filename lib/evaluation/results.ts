// What an evaluation keeps: a line of responses.jsonl, and the little of it that the numbers are computed from.
import { mean } from '../algorithm/pass-at-k.js';
import type { Verdict } from '../reward/types.js';
import type { JudgedAnswer, JudgedProblem } from '../train/evaluate.js';
import type { Problem } from '../train/types.js';

/** One answer without its text. */
export type AnswerResult = Pick<JudgedAnswer, 'tokens' | 'finish' | 'vote'> & {
  verdict: Pick<Verdict, 'outcome' | 'score'>;
};

/** All answers to one problem. */
export type ProblemResult = AnswerResult[];

/** A line of responses.jsonl: also a row that `archer-native reward` can score anew. */
export interface ResponseLine {
  /** <benchmark>/<index>/<sample> */
  id: string;
  data_source: string;
  prompt: string;
  /** null where it is longer than `longestTruth`: the tests of a program would outweigh the responses. */
  ground_truth: string | string[] | null;
  response: string;
  outcome: Verdict['outcome'];
  score: number;
  /** What the verifier took for the answer. */
  answer: string | null;
  vote: number | null;
  tokens: number | null;
  finish: string;
  message?: string;
}

const longestTruth = 4096;

export function responseLines(benchmark: string, { problem, answers }: JudgedProblem): ResponseLine[] {
  const { row, text } = problem;
  const truthLength = typeof row.groundTruth === 'string' ? row.groundTruth.length : row.groundTruth.join().length;
  return answers.map(({ verdict, ...answer }, sample) => ({
    id: responseId(benchmark, row.index, sample),
    data_source: row.dataSource,
    prompt: text,
    ground_truth: truthLength > longestTruth ? null : row.groundTruth,
    response: answer.text,
    outcome: verdict.outcome,
    score: verdict.score,
    answer: verdict.extracted ?? null,
    vote: answer.vote,
    tokens: answer.tokens,
    finish: answer.finish,
    ...(verdict.message === undefined ? {} : { message: verdict.message }),
  }));
}

export function responseId(benchmark: string, index: number, sample: number): string {
  return `${benchmark}/${index}/${sample}`;
}

export function answerResult({ outcome, score, vote, tokens, finish }: ResponseLine): AnswerResult {
  return { verdict: { outcome, score }, vote, tokens, finish };
}

export function problemResult({ answers }: JudgedProblem): ProblemResult {
  return answers.map(({ verdict, vote, tokens, finish }) => {
    return { verdict: { outcome: verdict.outcome, score: verdict.score }, vote, tokens, finish };
  });
}

/** A line of pass_rates.jsonl: how hard a problem is for the model. data.pass_rates.file takes such a file. */
export interface PassRateLine {
  benchmark: string;
  /** Names the problem by its content. */
  prompt_id: string;
  source: string;
  index: number;
  n: number;
  num_correct: number;
  /** num_correct / n */
  pass_rate: number;
  /** The mean of the scores, which is pass_rate where scores are 0 and 1. */
  score: number;
}

export function passRate(benchmark: string, { row }: Problem, answers: ProblemResult): PassRateLine {
  const n = answers.length;
  const correct = answers.filter(({ verdict }) => verdict.outcome === 'ok').length;
  return {
    benchmark,
    prompt_id: row.id,
    source: row.dataSource,
    index: row.index,
    n,
    num_correct: correct,
    pass_rate: correct / n,
    score: mean(answers.map(({ verdict }) => verdict.score)),
  };
}
