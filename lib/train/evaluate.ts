// Evaluation on held-out problems: avg@n, unbiased pass@k, maj@n per data source, with bootstrap intervals over problems
// (archer.md 6). The random numbers are the same at every evaluation, so that differences come from the weights.
import { evaluationMetrics, type ProblemOutcome } from '../algorithm/pass-at-k.js';
import type { ResolvedConfig } from '../config/index.js';
import type { Scorer, Verdict } from '../reward/types.js';
import type { RolloutEngine, SamplingOptions } from '../rollout/types.js';
import { rewardInput, type TrainPrompt } from './types.js';

export interface EvaluateOptions {
  prompts: TrainPrompt[];
  engine: RolloutEngine;
  scorer: Scorer;
  sampling: SamplingOptions;
  /** avg@n, pass@k, maj@n: which to report. */
  metrics: string[];
  seed: number;
  signal?: AbortSignal | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Called with every finished problem, in order. */
  onProblem?: ((result: EvaluatedProblem) => void) | undefined;
}

export interface EvaluatedProblem {
  prompt: TrainPrompt;
  responses: { text: string; tokens: number; finish: string; verdict: Verdict }[];
}

export interface EvaluationResult {
  /** By data source: metric -> value, with <metric>/ci_low and <metric>/ci_high. */
  bySource: Record<string, Record<string, number>>;
  problems: number;
  responses: number;
  /** Shares over all responses. */
  outcomes: Record<string, number>;
  truncated: number;
  /** In tokens. */
  responseLength: { mean: number; median: number; max: number };
}

/** How validation and `eval` sample: the val section, with training's limits and stops. */
export function evaluationSampling({ val, data, rollout }: ResolvedConfig): SamplingOptions {
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

/** Problems sampled together: enough to fill the decode batch, few enough that progress and memory stay smooth. */
export const problemsPerRound = (n: number) => Math.max(1, Math.floor(1024 / n));

// Training steps count from 1: step 0 keeps validation's random numbers apart from training's.
const evaluationStep = 0;

export async function evaluate(options: EvaluateOptions): Promise<EvaluationResult> {
  const { prompts, engine, scorer, sampling, seed, signal } = options;
  const perRound = problemsPerRound(sampling.n);
  const bySource = new Map<string, ProblemOutcome[]>();
  const outcomes: Record<string, number> = { ok: 0, wrong: 0, parse_error: 0, timeout: 0, crash: 0 };
  const lengths: number[] = [];
  let truncated = 0;
  for (let first = 0; first < prompts.length; first += perRound) {
    const round = prompts.slice(first, first + perRound);
    const groups = await engine.generate({
      ...sampling,
      prompts: round,
      seed,
      step: evaluationStep,
      signal,
      onProgress: (done, total) =>
        options.onProgress?.(first + (round.length * done) / Math.max(total, 1), prompts.length),
    });
    const verdicts = await scorer.score(
      groups.flatMap(({ prompt, responses }) => responses.map((response) => rewardInput(prompt, response))),
      { signal },
    );
    groups.forEach(({ prompt, responses }, i) => {
      const own = verdicts.slice(i * sampling.n, (i + 1) * sampling.n);
      const source = prompt.row.dataSource;
      const problems = bySource.get(source) ?? [];
      problems.push({
        scores: own.map((verdict) => verdict.score),
        votes: own.map((verdict) => (verdict.outcome === 'parse_error' ? undefined : verdict.extracted)),
      });
      bySource.set(source, problems);
      for (const verdict of own) outcomes[verdict.outcome] = (outcomes[verdict.outcome] ?? 0) + 1;
      for (const response of responses) {
        lengths.push(response.ids.length);
        if (response.finish === 'length') truncated += 1;
      }
      options.onProblem?.({
        prompt,
        responses: responses.map((response, j) => ({
          text: response.text,
          tokens: response.ids.length,
          finish: response.finish,
          verdict: own[j] as Verdict,
        })),
      });
    });
    options.onProgress?.(Math.min(first + perRound, prompts.length), prompts.length);
  }
  lengths.sort((a, b) => a - b);
  const responses = lengths.length;
  return {
    bySource: Object.fromEntries(
      [...bySource].map(([source, problems]) => [source, evaluationMetrics(problems, { metrics: options.metrics, seed })]),
    ),
    problems: prompts.length,
    responses,
    outcomes: Object.fromEntries(Object.entries(outcomes).map(([name, count]) => [name, count / Math.max(responses, 1)])),
    truncated: truncated / Math.max(responses, 1),
    responseLength: {
      mean: lengths.reduce((sum, length) => sum + length, 0) / Math.max(responses, 1),
      median: lengths[Math.floor((responses - 1) / 2)] ?? 0,
      max: lengths[responses - 1] ?? 0,
    },
  };
}
