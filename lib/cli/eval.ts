import type { Command } from 'commander';
import pc from 'picocolors';
import { environmentVariable, type ResolvedConfig } from '../config/index.js';
import { ArcherError } from '../errors.js';
import { askServed } from '../evaluation/ask-served.js';
import { type Benchmark, benchmarksOf } from '../evaluation/benchmarks.js';
import { compareEvaluations, comparisonTable } from '../evaluation/compare.js';
import {
  type Contestant,
  type LoadedBenchmark,
  loadEncoded,
  loadPlain,
  runEvaluation,
  type RunEvaluationOptions,
} from '../evaluation/run.js';
import { type Summary, summaryTable } from '../evaluation/summary.js';
import { Weights } from '../native/policy.js';
import { checkContext, LocalEngine } from '../rollout/local-engine.js';
import { loadModelAndTokenizer } from '../rollout/policy.js';
import { ServedModel } from '../rollout/served-model.js';
import { askEngine } from '../train/evaluate.js';
import type { Problem, TrainPrompt } from '../train/types.js';
import {
  type CommandContext,
  type CommonOptions,
  loadFor,
  printJson,
  runCommand,
  toNumber,
  withCommonOptions,
} from './command.js';

interface Options extends CommonOptions {
  model?: string;
  url?: string;
  servedModel?: string;
  data?: string[];
  only?: string[];
  n?: number;
  temperature?: number;
  maxTokens?: number;
  out?: string;
  compare?: boolean;
}

export function addEval(program: Command): void {
  withCommonOptions(
    program
      .command('eval')
      .argument('[config...]', 'YAML file; its val, data and reward sections say how; without one the defaults hold')
      .description(
        'measure a model on held-out problems: avg@n, unbiased pass@k, maj@n, with 95 % intervals over problems',
      ),
  )
    .option(
      '-m, --model <folder>',
      'Hugging Face folder, a checkpoint, owner/name of a pulled model, or bundled (model.path)',
    )
    .option('--url <address>', 'OpenAI-compatible server to ask instead: http://host:port/v1 (val.served.url)')
    .option('--served-model <name>', 'name of the model on that server (val.served.model)')
    .option('-d, --data <file...>', 'JSONL or parquet files, or bundled, instead of the benchmarks of the config')
    .option('--only <name...>', 'these benchmarks of the config alone')
    .option('-n, --n <count>', 'responses per problem, for every benchmark (val.n)', toNumber)
    .option('-t, --temperature <value>', 'sampling temperature, for every benchmark (val.temperature)', toNumber)
    .option('--max-tokens <count>', 'longest response, for every benchmark (data.max_response_length)', toNumber)
    .option(
      '-o, --out <folder>',
      'write responses, pass rates and summary there; the same command goes on after a kill',
    )
    .option('--compare', 'compare two finished --out folders: eval --compare FIRST SECOND')
    .action((args: string[], options: Options) =>
      runCommand(options, (context) => (options.compare ? compare(args, options) : run(args, options, context))),
    );
}

async function compare(folders: string[], options: Options): Promise<void> {
  const [first, second, ...more] = folders;
  if (first === undefined || second === undefined || more.length > 0) {
    throw new ArcherError('ARCHER_E_CONFIG', 'eval --compare takes two --out folders: eval --compare FIRST SECOND.');
  }
  const { config } = loadFor(undefined, options);
  const comparison = await compareEvaluations([first, second], config.trainer.seed);
  if (options.json) printJson(comparison);
  else process.stdout.write(`${comparisonTable(comparison)}In percent, with 95 % bootstrap intervals over problems.\n`);
}

async function run([file, ...more]: string[], options: Options, context: CommandContext): Promise<void> {
  if (more.length > 0)
    throw new ArcherError('ARCHER_E_CONFIG', `eval takes one configuration, and ${more[0]} is another.`);
  const { config } = loadFor(file, options, {
    model: { path: options.model },
    data: { val_files: options.data, max_response_length: options.maxTokens },
    val: {
      n: options.n,
      temperature: options.temperature,
      benchmarks: options.data && [],
      served: { url: options.url, model: options.servedModel },
    },
  });
  const overrides = { n: options.n, temperature: options.temperature, maxResponseLength: options.maxTokens };
  const benchmarks = chosen(benchmarksOf(config, overrides), options.only);
  const isServed = config.val.served.url !== null || config.val.served.model !== null;
  const evaluation = isServed ? evaluateServed : evaluateFolder;
  const summary = await evaluation(config, benchmarks, options, context);
  if (options.json) printJson(summary);
  else process.stdout.write(`${summaryTable(summary)}\n`);
}

function chosen(benchmarks: Benchmark[], names: string[] | undefined): Benchmark[] {
  const unknown = names?.find((name) => !benchmarks.some((benchmark) => benchmark.name === name));
  if (unknown === undefined) return benchmarks.filter(({ name }) => names?.includes(name) ?? true);
  const known = benchmarks.map(({ name }) => name).join(', ');
  throw new ArcherError('ARCHER_E_CONFIG', `--only ${unknown}: there is no such benchmark; there are ${known}.`);
}

// Enough to fill the decode batch, few enough that a kill costs little.
const responsesPerRound = 256;

async function evaluateFolder(
  config: ResolvedConfig,
  benchmarks: Benchmark[],
  options: Options,
  { signal, begin }: CommandContext,
): Promise<Summary> {
  const { folder, tokenizer } = await loadModelAndTokenizer(config.model.path);
  const loaded = await loadEncoded(benchmarks, tokenizer, signal);
  for (const { benchmark, problems } of loaded) checkContext(folder, problems, benchmark.sampling.maxNewTokens);
  showReports(loaded, options);
  const weights = await Weights.load(folder, { dtype: config.model.dtype, numThreads: config.num_threads, signal });
  try {
    const { max_slots: maxSlots, kv_budget_bytes: kvBudgetBytes, batch_invariant: batchInvariant } = config.rollout;
    const engine = new LocalEngine({ weights, tokenizer, maxSlots, kvBudgetBytes, batchInvariant });
    const contestant: Contestant<TrainPrompt> = {
      name: config.model.path,
      identity: {
        model: options.out === undefined ? null : await folder.hash(),
        dtype: config.model.dtype,
        batch_invariant: batchInvariant,
      },
      responsesPerRound,
      ask: ({ sampling }) => askEngine(engine, sampling, config.trainer.seed),
    };
    return await runEvaluation({ config, contestant, loaded, signal, begin, ...outputs(options) });
  } finally {
    weights.dispose();
  }
}

async function evaluateServed(
  config: ResolvedConfig,
  benchmarks: Benchmark[],
  options: Options,
  { signal, begin }: CommandContext,
): Promise<Summary> {
  const { url, model: name, api_key_env: keyName, concurrency, timeout_seconds, max_retries } = config.val.served;
  if (url === null || name === null) {
    throw new ArcherError(
      'ARCHER_E_CONFIG',
      'A served model needs both its address and its name: --url and --served-model.',
    );
  }
  const apiKey = environmentVariable(keyName);
  const model = new ServedModel({ url, model: name, apiKey, timeoutSeconds: timeout_seconds, maxRetries: max_retries });
  const loaded = await loadPlain(benchmarks);
  showReports(loaded, options);
  const contestant: Contestant<Problem> = {
    name,
    // Not the address: a server that was started anew elsewhere may finish the evaluation.
    identity: { served_model: name },
    responsesPerRound: 4 * concurrency,
    ask: (benchmark) => askServed({ model, benchmark, seed: config.trainer.seed, concurrency }),
  };
  return runEvaluation({ config, contestant, loaded, signal, begin, ...outputs(options) });
}

function showReports(loaded: LoadedBenchmark<Problem>[], { json }: Options): void {
  if (json) return;
  for (const { benchmark, report } of loaded) {
    for (const line of report) process.stderr.write(pc.dim(`${benchmark.name}: ${line}\n`));
  }
}

function outputs({ out, json }: Options): Pick<RunEvaluationOptions<Problem>, 'out' | 'onProgress'> {
  return { out, onProgress: json || !process.stderr.isTTY ? undefined : showProgress };
}

function showProgress(benchmark: string, done: number, total: number, detail?: string): void {
  const end = done >= total && detail === undefined ? '\r\x1b[K' : '';
  const waiting = detail === undefined ? '' : `, ${detail}`;
  process.stderr.write(`\r\x1b[K${pc.bold(benchmark)}: ${Math.floor(done)} of ${total} problems${waiting}${end}`);
}
