// What a reward function gets and gives. `ok` and `wrong` are verdicts on a response; the other outcomes say that there
// was no verdict, and are counted apart, so that a broken verifier never looks like a model that learns nothing.

import type { VerifierName } from './verifiers.js';

/** One response to judge. */
export interface RewardInput {
  /** The last user message of the prompt. */
  prompt: string;
  /** The response as text, special tokens left out. */
  response: string;
  /** The accepted answer, or several of which one is enough. */
  groundTruth: string | string[];
  /** The row's extra fields. */
  extraInfo: Record<string, unknown>;
  /** Where the row comes from; chooses the verifier when none is named. */
  dataSource: string;
}

/**
 * - `ok`, `wrong`: the verifier judged the response
 * - `parse_error`: no answer was found in the response, or the answer is past the verifier's bounds
 * - `timeout`: no verdict within reward.timeout_seconds
 * - `crash`: the reward function threw, ended its process or returned something that is not a finite number
 */
export const outcomes = ['ok', 'wrong', 'parse_error', 'timeout', 'crash'] as const;
export type Outcome = (typeof outcomes)[number];

export interface Verdict {
  /** The reward; finite. 0 for every outcome without a verdict, unless a custom function says otherwise. */
  score: number;
  outcome: Outcome;
  /** What was taken for the response's answer. */
  extracted?: string;
  /** What ended a judged program: exception, exit, memory, output, processes, signal, wall or cpu. */
  detail?: string | undefined;
  /** Why there is no verdict. */
  message?: string;
}

/** What a reward function may return: a score, true (1) or false (0), or parts of a verdict. */
export type RewardResult = number | boolean | Partial<Verdict>;

/**
 * A reward function of your own. Export it as the default of a module and name the module in `reward.path`, or hand it
 * to the library as `reward: { fn }`. Without an outcome, a score above 0 counts as `ok`, any other as `wrong`.
 *
 * A module's function runs in a process of its own, which is killed after `reward.timeout_seconds`: a hang, an exception
 * or process.exit() costs that response only. It also finds `ground_truth`, `extra_info` and `data_source` in its input,
 * verl's spelling of the same values.
 *
 * @example
 * export default ({ response, groundTruth }) => response.trim() === groundTruth;
 */
export type RewardFunction = (input: RewardInput) => RewardResult | Promise<RewardResult>;

export interface ScoreOptions {
  /** Rejects with ARCHER_E_ABORTED and kills the workers that are busy. */
  signal?: AbortSignal;
  /** Called after every verdict, and every few seconds without one. */
  onProgress?: (progress: ScoreProgress) => void;
}

export interface ScoreProgress {
  done: number;
  total: number;
  /** The response that everybody waits for: the one that has been judged for longest. Only where there was no verdict for
   * some seconds. */
  waiting?: { index: number; seconds: number; stage: string };
}

/** Judges responses. The verdicts stand in the order of the inputs; one that fails does not touch the others. */
export interface Scorer {
  /** What judges: the name of a verifier, `by data_source`, or the path of a module. */
  readonly description: string;
  /** The built-in verifier of rows from this source; undefined where a module or a function judges. */
  verifierFor(dataSource: string): VerifierName | undefined;
  score(inputs: readonly RewardInput[], options?: ScoreOptions): Promise<Verdict[]>;
  /** Ends the worker processes. Twice is fine. */
  dispose(): Promise<void>;
}

/** How often each outcome occurred. */
export function countOutcomes(verdicts: readonly Verdict[]): Record<Outcome, number> {
  const counts: Record<Outcome, number> = { ok: 0, wrong: 0, parse_error: 0, timeout: 0, crash: 0 };
  for (const verdict of verdicts) counts[verdict.outcome] += 1;
  return counts;
}
