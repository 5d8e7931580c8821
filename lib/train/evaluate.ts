// Evaluation on held-out problems: rounds of problems are asked n times each and judged; avg@n, unbiased pass@k and
// maj@n follow from that, with bootstrap intervals over problems (archer.md 6). The random numbers are the same at every
// evaluation, so that differences come from the weights.
import { evaluationMetrics, type ProblemOutcome } from '../algorithm/pass-at-k.js';
import type { ResolvedConfig } from '../config/index.js';
import type { Scorer, Verdict } from '../reward/types.js';
import { votesOf } from '../reward/votes.js';
import type { RolloutEngine, SamplingOptions } from '../rollout/types.js';
import { type Problem, rewardInput, type TrainPrompt } from './types.js';
import { waitingFor } from './waiting.js';

/** What a model said, wherever it runs. */
export interface Answer {
  text: string;
  /** null where a server does not count them. */
  tokens: number | null;
  /** `length`: cut at the limit. */
  finish: string;
}

export interface JudgedAnswer extends Answer {
  verdict: Verdict;
  /** For maj@n: index of the first answer to the problem that is equal to this one; null without a vote. */
  vote: number | null;
}

export interface JudgedProblem<P extends Problem = Problem> {
  problem: P;
  answers: JudgedAnswer[];
}

/** Asks every problem n times: result[i][j] is answer j to problem i. */
export type Ask<P extends Problem> = (
  problems: P[],
  options: { signal?: AbortSignal | undefined; onProgress?: ((fraction: number) => void) | undefined },
) => Promise<Answer[][]>;

export interface JudgeOptions<P extends Problem> {
  problems: readonly P[];
  ask: Ask<P>;
  scorer: Scorer;
  /** Problems asked together. */
  perRound: number;
  signal?: AbortSignal | undefined;
  /** Problems done, in fractions of one, and what is waited for. */
  onProgress?: ((done: number, detail?: string) => void) | undefined;
}

/** Asks and judges round by round; every round is in the order of the problems. */
export async function* judgeRounds<P extends Problem>(options: JudgeOptions<P>): AsyncGenerator<JudgedProblem<P>[]> {
  const { problems, ask, scorer, perRound, signal, onProgress } = options;
  for (let first = 0; first < problems.length; first += perRound) {
    const round = problems.slice(first, first + perRound);
    const answers = await ask(round, {
      signal,
      onProgress: (fraction) => onProgress?.(first + round.length * fraction),
    });
    const inputs = round.map((problem, i) => (answers[i] ?? []).map((answer) => rewardInput(problem, answer)));
    const asked = round.flatMap((problem, i) => inputs[i]!.map(() => problem));
    const verdicts = await scorer.score(inputs.flat(), {
      signal,
      onProgress: ({ waiting }) => waiting && onProgress?.(first + round.length, waitingFor(asked, waiting)),
    });
    const judged: JudgedProblem<P>[] = [];
    let at = 0;
    for (const [i, problem] of round.entries()) {
      const own = verdicts.slice(at, at + inputs[i]!.length);
      at += own.length;
      const votes = votesOf(own, inputs[i]![0]!, scorer.description);
      judged.push({
        problem,
        answers: answers[i]!.map((answer, j) => ({ ...answer, verdict: own[j]!, vote: votes[j]! })),
      });
    }
    onProgress?.(first + round.length);
    yield judged;
  }
}

/** How validation and `eval` sample: the val section, with training's limits and stops. */
export function evaluationSampling({
  val,
  data,
  rollout,
}: Pick<ResolvedConfig, 'val' | 'data' | 'rollout'>): SamplingOptions {
  return {
    n: val.n,
    temperature: val.temperature,
    topP: val.top_p,
    topK: -1,
    minP: 0,
    maxNewTokens: data.max_response_length,
    stop: rollout.stop,
    stopTokenIds: rollout.stop_token_ids,
  };
}

// Training steps count from 1: step 0 keeps evaluation's random numbers apart from training's.
const evaluationStep = 0;

/** Asks the engine of this process. */
export function askEngine(engine: RolloutEngine, sampling: SamplingOptions, seed: number): Ask<TrainPrompt> {
  return async (prompts, { signal, onProgress }) => {
    const groups = await engine.generate({
      ...sampling,
      prompts,
      seed,
      step: evaluationStep,
      signal,
      onProgress: (done, total) => onProgress?.(done / Math.max(total, 1)),
    });
    return groups.map(({ responses }) =>
      responses.map(({ text, ids, finish }) => ({ text, tokens: ids.length, finish })),
    );
  };
}

/** What the metrics of one problem are computed from. */
export function outcomeOf(answers: readonly Pick<JudgedAnswer, 'verdict' | 'vote'>[]): ProblemOutcome {
  return {
    scores: answers.map(({ verdict }) => verdict.score),
    votes: answers.map(({ vote }) => vote),
    correct: answers.map(({ verdict }) => verdict.outcome === 'ok'),
  };
}

// Responses sampled together in a validation: enough to fill the decode batch, few enough that progress and memory stay
// smooth.
const responsesPerRound = 1024;

/** Problems of one round at n responses each. */
export function problemsPerRound(n: number): number {
  return Math.max(1, Math.floor(responsesPerRound / n));
}

export interface EvaluateOptions {
  config: ResolvedConfig;
  prompts: TrainPrompt[];
  engine: RolloutEngine;
  scorer: Scorer;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number, detail?: string) => void) | undefined;
}

/** Validation: by data source, metric -> value, with <metric>/ci_low and <metric>/ci_high. */
export async function evaluate(options: EvaluateOptions): Promise<Record<string, Record<string, number>>> {
  const { config, prompts, engine, scorer, signal, onProgress } = options;
  const { seed } = config.trainer;
  const rounds = judgeRounds({
    problems: prompts,
    ask: askEngine(engine, evaluationSampling(config), seed),
    scorer,
    perRound: problemsPerRound(config.val.n),
    signal,
    onProgress: (done, detail) => onProgress?.(done, prompts.length, detail),
  });
  const bySource = new Map<string, ProblemOutcome[]>();
  for await (const round of rounds) {
    for (const { problem, answers } of round) {
      const { dataSource } = problem.row;
      const outcomes = bySource.get(dataSource) ?? [];
      outcomes.push(outcomeOf(answers));
      bySource.set(dataSource, outcomes);
    }
  }
  const { metrics } = config.val;
  return Object.fromEntries(
    [...bySource].map(([source, problems]) => [source, evaluationMetrics(problems, { metrics, seed })]),
  );
}
