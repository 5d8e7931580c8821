// An evaluation from its first problem to its summary: benchmarks in turn, each in rounds, with a folder that a killed
// run goes on from.
import type { ResolvedConfig } from '../config/index.js';
import type { Tokenizer } from '../data/tokenizer.js';
import type { Row } from '../data/types.js';
import { packageVersion } from '../package-root.js';
import { type Ask, type JudgedProblem, judgeRounds } from '../train/evaluate.js';
import { loadPrompts, loadRows, makeScorer, resolveDataFiles } from '../train/setup.js';
import type { Problem, TrainPrompt } from '../train/types.js';
import type { Benchmark } from './benchmarks.js';
import { EvaluationFolder, type PlannedBenchmark } from './folder.js';
import { passRate, type ProblemResult, problemResult } from './results.js';
import { type Summary, summarize } from './summary.js';

/** What is evaluated: how it is asked, and what tells it from others. */
export interface Contestant<P extends Problem> {
  /** For the report. */
  name: string;
  /** What must be equal for an evaluation to go on, besides the benchmarks. */
  identity: Record<string, unknown>;
  /** Responses sampled together. */
  responsesPerRound: number;
  ask(benchmark: Benchmark): Ask<P>;
}

export interface LoadedBenchmark<P extends Problem> {
  benchmark: Benchmark;
  problems: P[];
  /** Of the data files and columns. */
  hash: string;
  /** Rows, and what was dropped or cut and where. */
  report: string[];
}

/** The problems of every benchmark, encoded for a model of this process. */
export async function loadEncoded(
  benchmarks: Benchmark[],
  tokenizer: Tokenizer,
  signal: AbortSignal,
): Promise<LoadedBenchmark<TrainPrompt>[]> {
  const loaded: LoadedBenchmark<TrainPrompt>[] = [];
  for (const benchmark of benchmarks) {
    const { prompts, hash, report } = await loadPrompts(
      resolveDataFiles(benchmark.files, 'test'),
      tokenizer,
      benchmark.data,
      signal,
    );
    loaded.push({ benchmark, problems: firstOf(prompts, benchmark.maxSamples), hash, report });
  }
  return loaded;
}

/** The problems of every benchmark as they are: a served model has its own tokenizer and template. */
export async function loadPlain(benchmarks: Benchmark[]): Promise<LoadedBenchmark<Problem>[]> {
  const loaded: LoadedBenchmark<Problem>[] = [];
  for (const benchmark of benchmarks) {
    const dataset = await loadRows(resolveDataFiles(benchmark.files, 'test'), benchmark.data);
    const count = benchmark.maxSamples > 0 ? Math.min(benchmark.maxSamples, dataset.rows) : dataset.rows;
    const problems = Array.from({ length: count }, (_, i) => problemOf(dataset.get(i)));
    loaded.push({ benchmark, problems, hash: dataset.hash, report: [`${count} of ${dataset.rows} rows`] });
  }
  return loaded;
}

function problemOf(row: Row): Problem {
  const text = row.prompt.findLast((message) => message.role === 'user')?.content ?? '';
  return { promptKey: row.index, row, text };
}

function firstOf<T>(all: T[], count: number): T[] {
  return count > 0 ? all.slice(0, count) : all;
}

export interface RunEvaluationOptions<P extends Problem> {
  config: ResolvedConfig;
  contestant: Contestant<P>;
  loaded: LoadedBenchmark<P>[];
  /** --out: where everything goes, and where a killed evaluation goes on. */
  out?: string | undefined;
  signal: AbortSignal;
  /** Called when everything has been accepted and the first problem is asked. */
  begin?: (() => void) | undefined;
  onProgress?: ((benchmark: string, done: number, total: number, detail?: string) => void) | undefined;
}

export async function runEvaluation<P extends Problem>(options: RunEvaluationOptions<P>): Promise<Summary> {
  const { config, contestant, loaded, out } = options;
  const plan = loaded.map(
    ({ benchmark: { name, sampling }, problems }): PlannedBenchmark => ({
      name,
      indices: problems.map(({ promptKey }) => promptKey),
      n: sampling.n,
      perRound: Math.max(1, Math.floor(contestant.responsesPerRound / sampling.n)),
    }),
  );
  const folder = out === undefined ? undefined : await EvaluationFolder.open(out, identityOf(options));
  try {
    const results = (await folder?.restore(plan)) ?? new Map<string, ProblemResult[]>();
    options.begin?.();
    for (const [i, one] of loaded.entries()) {
      const { name, perRound } = plan[i]!;
      const done = results.get(name) ?? [];
      results.set(name, done);
      await runBenchmark(options, one, perRound, done, (round) => folder?.append(name, round));
    }
    const summary = summarize({
      model: contestant.name,
      seed: config.trainer.seed,
      metrics: config.val.metrics,
      benchmarks: loaded.map(({ benchmark }) => benchmark),
      results,
    });
    const rates = loaded.flatMap(({ benchmark: { name }, problems }) =>
      problems.map((problem, i) => passRate(name, problem, results.get(name)![i]!)),
    );
    await folder?.finish(summary, rates);
    return summary;
  } finally {
    await folder?.close();
  }
}

/** Asks what is not in `done` yet, and adds it. */
async function runBenchmark<P extends Problem>(
  { config, contestant, signal, onProgress }: RunEvaluationOptions<P>,
  { benchmark, problems }: LoadedBenchmark<P>,
  perRound: number,
  done: ProblemResult[],
  keep: (round: JudgedProblem[]) => void,
): Promise<void> {
  const rest = problems.slice(done.length);
  if (rest.length === 0) return;
  const start = done.length;
  const scorer = await makeScorer({ ...config, reward: benchmark.reward }, undefined);
  try {
    const rounds = judgeRounds({
      problems: rest,
      ask: contestant.ask(benchmark),
      scorer,
      perRound,
      signal,
      onProgress: (count, detail) => onProgress?.(benchmark.name, start + count, problems.length, detail),
    });
    for await (const round of rounds) {
      keep(round);
      done.push(...round.map(problemResult));
    }
  } finally {
    await scorer.dispose();
  }
}

/** Everything that decides what the responses and their verdicts are. */
function identityOf<P extends Problem>({ config, contestant, loaded }: RunEvaluationOptions<P>): object {
  return {
    version: packageVersion,
    ...contestant.identity,
    seed: config.trainer.seed,
    metrics: config.val.metrics,
    benchmarks: loaded.map(({ benchmark, problems, hash }) => {
      const { name, data, sampling } = benchmark;
      const { workers: _, self_test: __, ...reward } = benchmark.reward;
      return {
        name,
        data: hash,
        problems: problems.length,
        max_prompt_length: data.max_prompt_length,
        overlong_prompts: data.overlong_prompts,
        apply_chat_template: data.apply_chat_template,
        system_prompt: data.system_prompt,
        instruction: data.instruction,
        prompt_templates: data.prompt_templates,
        apply_chat_template_kwargs: data.apply_chat_template_kwargs,
        reward,
        sampling,
      };
    }),
  };
}
