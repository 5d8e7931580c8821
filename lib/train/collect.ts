// The first half of a step: prompts -> responses -> verdicts -> the groups that teach something (archer.md 6, 1–3).
import { keepsGroup, refillDecision } from '../algorithm/group-filter.js';
import { overlongPenalty } from '../algorithm/overlong.js';
import type { ResolvedConfig } from '../config/index.js';
import type { Sampler } from '../data/sampler.js';
import type { Stage } from '../metrics/progress.js';
import type { Scorer } from '../reward/types.js';
import type { ResponseGroup, RolloutEngine } from '../rollout/types.js';
import type { Stopwatch } from './stopwatch.js';
import type { ResponseLengths } from './response-lengths.js';
import { rewardInput, type ScoredGroup, type TrainPrompt } from './types.js';
import { waitingFor } from './waiting.js';

/** Says which stage runs, how far it is (0 to 1), and what it waits for. */
export type ShowProgress = (stage: Stage, fraction?: number, detail?: string) => void;

export interface CollectContext {
  config: ResolvedConfig;
  engine: RolloutEngine;
  scorer: Scorer;
  sampler: Sampler;
  prompts: TrainPrompt[];
  responseLengths: ResponseLengths;
  stopwatch: Stopwatch;
  signal: AbortSignal;
  progress: ShowProgress;
}

export interface Collected {
  /** Every group that was sampled in this step; the reward metrics are over these. */
  sampled: ScoredGroup[];
  /** Those that go into the update. */
  kept: ScoredGroup[];
  /** Sampling rounds: 1 without refill. */
  numGenBatches: number;
}

/** Samples and scores one step's groups; with refill on, samples further prompts until the batch is full. */
export async function collectGroups(step: number, context: CollectContext): Promise<Collected> {
  const { config, sampler, prompts } = context;
  const { enable, refill, max_num_gen_batches: maxRounds } = config.algorithm.filter_groups;
  const wanted = config.data.train_batch_size;
  const sampled: ScoredGroup[] = [];
  const kept: ScoredGroup[] = [];
  const seen: number[] = [];
  let rounds = 0;
  do {
    const chosen = sampler.next(Math.min(wanted, prompts.length - seen.length), { exclude: seen });
    seen.push(...chosen);
    const groups = await sampleAndScore(
      chosen.map((index) => prompts[index] as TrainPrompt),
      step,
      context,
    );
    rounds += 1;
    sampled.push(...groups);
    kept.push(...(enable ? groups.filter((group) => keepsGroup(group.verdicts.map((verdict) => verdict.score))) : groups));
  } while (enable && refill && refillDecision({ kept: kept.length, wanted, rounds, maxRounds, left: prompts.length - seen.length }));
  return { sampled, kept: kept.slice(0, wanted), numGenBatches: rounds };
}

async function sampleAndScore(prompts: TrainPrompt[], step: number, context: CollectContext): Promise<ScoredGroup[]> {
  const { config, engine, responseLengths, stopwatch, signal, progress } = context;
  const { rollout, data, trainer } = config;
  progress('generate', 0);
  const groups = await stopwatch.time('gen', () =>
    engine.generate({
      prompts,
      n: rollout.n,
      expectedLengths: responseLengths.of(prompts),
      temperature: rollout.temperature,
      topP: rollout.top_p,
      topK: rollout.top_k,
      minP: rollout.min_p,
      maxNewTokens: data.max_response_length,
      stop: rollout.stop,
      stopTokenIds: rollout.stop_token_ids,
      seed: trainer.seed,
      step,
      signal,
      onProgress: (done, total) => progress('generate', done / Math.max(total, 1)),
    }),
  );
  progress('reward', 0);
  return stopwatch.time('reward', () => scoreGroups(groups, context));
}

/** The verifier on every response; rewards are its scores, less the overlong penalty where that is on. */
async function scoreGroups(
  groups: ResponseGroup<TrainPrompt>[],
  { config, scorer, signal, progress }: CollectContext,
): Promise<ScoredGroup[]> {
  const { overlong_buffer: overlong } = config.algorithm;
  const n = config.rollout.n;
  const inputs = groups.flatMap(({ prompt, responses }) =>
    responses.map((response) => rewardInput(prompt, response)),
  );
  const problems = groups.flatMap(({ prompt, responses }) => responses.map(() => prompt));
  const verdicts = await scorer.score(inputs, {
    signal,
    onProgress: ({ done, total, waiting }) =>
      progress('reward', done / Math.max(total, 1), waiting && waitingFor(problems, waiting)),
  });
  return groups.map((group, i) => {
    const own = verdicts.slice(i * n, (i + 1) * n);
    const rewards = own.map((verdict, j) => {
      const length = group.responses[j]?.ids.length ?? 0;
      if (!overlong.enable) return verdict.score;
      return (
        verdict.score +
        overlongPenalty(length, {
          maxLength: config.data.max_response_length,
          bufferLength: overlong.len,
          factor: overlong.penalty_factor,
        })
      );
    });
    return { ...group, verdicts: own, rewards };
  });
}
