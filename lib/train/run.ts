// A whole run, for the command line and for programs: configuration in, an async iterable of steps out. Puts the parts
// together, resumes, saves on interruption, and cleans up.
import { setMaxListeners } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type ConfigInput, configHash, type LoadedConfig, loadConfig, needsReference, type ResolvedConfig } from '../config/index.js';
import { restoreJsonl } from '../checkpoint/jsonl-restore.js';
import type { JsonValue } from '../checkpoint/manifest.js';
import { openRunFolder, type RunFolder } from '../checkpoint/run-folder.js';
import { ArcherError, isArcherError } from '../errors.js';
import { ioError } from '../io-error.js';
import { ConsoleSink } from '../metrics/console.js';
import { JsonlSink, metricsName, timingsName } from '../metrics/jsonl.js';
import { combineSinks, type MetricsSink, type RunEnd, type StepRecord } from '../metrics/sink.js';
import { TensorboardSink } from '../metrics/tensorboard.js';
import type { ModelFolder } from '../model/folder.js';
import { readTensorTable } from '../model/safetensors.js';
import { packageVersion } from '../package-root.js';
import { Weights } from '../native/policy.js';
import { Optimizer } from '../native/trainer.js';
import type { RewardFunction } from '../reward/types.js';
import { checkContext, LocalEngine } from '../rollout/local-engine.js';
import { loadModelAndTokenizer } from '../rollout/policy.js';
import { memoryJob } from './machine-memory.js';
import { type MemoryPlan, planMemory } from './memory-plan.js';
import { refuseUnlessItFits } from './memory-remedies.js';
import { choiceRows, memoryRows } from './memory-report.js';
import { checkReward, type DroppedRow, type LoadedData, loadTrainingData, makeScorer, samplerFor } from './setup.js';
import { initialModel, startingModel } from './starting-model.js';
import { optimizerName, readState, stateFolder, type TrainerState } from './state.js';
import { Trace } from './trace.js';
import { Trainer } from './trainer.js';

export interface TrainOptions {
  /** The configuration as an object; keys as in docs/configuration.md. Without it: the defaults. */
  config?: ConfigInput;
  /** Or a YAML file. */
  file?: string;
  /** `a.b=c` overrides, as on the command line. */
  sets?: readonly string[];
  /** Scores responses in this process; wins over reward.name and reward.path. */
  reward?: RewardFunction;
  /** Stops the run: it saves the last completed step, then the iteration throws ARCHER_E_ABORTED. */
  signal?: AbortSignal;
  /** Writes a Chrome trace of where the time goes: into this file, or with true into trace.json in the run's folder. */
  profile?: string | boolean;
  /** Gets every record too, besides the loggers of trainer.logger. */
  sinks?: MetricsSink[];
  /** Called when model, data and reward have been accepted: what fails before is the user's input. */
  onPrepared?: () => void;
}


export const createdBy = `archer-native ${packageVersion}`;

/**
 * Starts a training run. Iterate it to train: each turn is one step (step 0 is the validation before training).
 *
 * @example
 * const run = train({ config: { trainer: { total_training_steps: 20 } }, reward: ({ response }) => response.length < 80 });
 * for await (const { step, metrics } of run) console.log(step, metrics['critic/score/mean']);
 *
 * @throws ARCHER_E_CONFIG at once; what is wrong with model, data or reward is thrown by the first turn.
 */
export function train(options: TrainOptions = {}): TrainingRun {
  const { config, file, sets } = options;
  return new TrainingRun(loadConfig({ object: config, file, sets }), options);
}

export class TrainingRun implements AsyncIterable<StepRecord>, AsyncDisposable {
  private started = false;
  private cleanups: ((status?: RunEnd['status']) => Promise<void> | void)[] = [];
  private folder: RunFolder | undefined;
  private plan: MemoryPlan | undefined;

  constructor(
    readonly loaded: LoadedConfig,
    private readonly options: TrainOptions,
  ) {}

  /** The run's folder; undefined before the first turn. */
  get runDir(): string | undefined {
    return this.folder?.dir;
  }

  /** What the run will hold in memory; undefined before the first turn. */
  get memoryPlan(): MemoryPlan | undefined {
    return this.plan;
  }

  async *[Symbol.asyncIterator](): AsyncIterator<StepRecord> {
    if (this.started) throw new ArcherError('ARCHER_E_CONFIG', 'A training run can be iterated once; call train() again.');
    this.started = true;
    const abort = new AbortController();
    // one listener per response that is being scored
    setMaxListeners(0, abort.signal);
    const { signal: given } = this.options;
    const onAbort = () => abort.abort();
    if (given?.aborted) abort.abort();
    given?.addEventListener('abort', onAbort, { once: true });
    this.cleanups.push(() => given?.removeEventListener('abort', onAbort));
    // Stays undefined where the caller breaks out of the loop.
    let status: RunEnd['status'] | undefined;
    let trainer: Trainer | undefined;
    try {
      trainer = await this.prepare(abort.signal);
      this.options.onPrepared?.();
      const first = await trainer.validateFirst(abort.signal);
      if (first) yield first;
      while (!trainer.isFinished) {
        throwIfAborted(abort.signal);
        yield await trainer.step(abort.signal);
      }
      if (this.loaded.config.trainer.save_freq > 0) await trainer.save();
      await this.folder?.finish();
      status = 'finished';
    } catch (error) {
      const aborted = isArcherError(error) && error.code === 'ARCHER_E_ABORTED';
      status = aborted ? 'interrupted' : 'failed';
      if (aborted) await trainer?.save();
      throw error;
    } finally {
      if (status === undefined) await trainer?.save();
      await this.close(status ?? 'interrupted');
    }
  }

  /** Ends the run's processes and frees its memory; a run that is iterated to its end has done so. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close('interrupted');
  }

  dispose(): Promise<void> {
    return this[Symbol.asyncDispose]();
  }

  /** In the order in which things were opened, backwards. Each is closed even where another one fails. */
  private async close(status: RunEnd['status']): Promise<void> {
    const failures: unknown[] = [];
    for (const cleanup of this.cleanups.splice(0).reverse()) {
      try {
        await cleanup(status);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  private async prepare(signal: AbortSignal): Promise<Trainer> {
    const { config, warnings } = this.loaded;
    const { folder: initial, tokenizer } = await loadModelAndTokenizer(config.model.path);
    const { data, validation } = await loadTrainingData(config, tokenizer, signal);
    checkContext(initial, [...data.prompts, ...(validation?.prompts ?? [])], config.data.max_response_length);
    if (config.data.train_batch_size > data.prompts.length) {
      throw new ArcherError(
        'ARCHER_E_CONFIG',
        `data.train_batch_size is ${config.data.train_batch_size} prompts, but there are ${data.prompts.length}; lower it.`,
      );
    }
    const job = memoryJob({ config, folder: initial, prompts: data.prompts, validation: validation?.prompts ?? [] });
    refuseUnlessItFits(job, planMemory(job));
    const scorer = await makeScorer(config, this.options.reward);
    this.cleanups.push(() => scorer.dispose());
    if (config.reward.self_test) {
      await checkReward(scorer, data, { custom: isCustom(config, this.options.reward), signal });
    }

    const initialHash = await initial.hash();
    const folder = await openRunFolder({
      localDir: config.trainer.default_local_dir,
      projectName: config.trainer.project_name,
      experimentName: config.trainer.experiment_name,
      resumeMode: config.trainer.resume_mode,
      configHash: configHash(config),
      dataHash: `${data.hash} ${initialHash}`,
      createdBy,
      config: config as unknown as JsonValue,
    });
    this.folder = folder;
    this.cleanups.push(() => folder.release());
    if (data.dropped.length > 0) await writeDropped(folder.dir, data.dropped);
    const state = folder.resumeFrom && (await readState(folder.resumeFrom.dir));

    // A resumed run goes on with the choices that its bits depend on.
    const plan = planMemory(job, state?.memory);
    refuseUnlessItFits(job, plan);
    this.plan = plan;
    const { microBatchTokens, kvBudgetBytes, gradientCheckpointing, keepBuffers } = plan.choices;
    const { dtype } = config.model;
    const load = (from: ModelFolder, trainable: boolean) =>
      Weights.load(from, { dtype, trainable, numThreads: config.num_threads, signal });
    const needsInitial = config.lora.rank > 0 || needsReference(config);
    const first = needsInitial ? await initialModel(initial, initialHash, state) : initial;
    const weights = await load(await startingModel(config, first, folder.resumeFrom?.dir), true);
    this.cleanups.push(() => weights.dispose());
    const frozen = () => (weights.folder.adapter ? weights.base() : load(first, false));
    const reference = needsReference(config) ? await frozen() : undefined;
    this.cleanups.push(() => reference?.dispose());
    const { optim } = config.actor;
    const optimizer = await Optimizer.create(weights, {
      beta1: optim.betas[0],
      beta2: optim.betas[1],
      eps: optim.eps,
      weightDecay: optim.weight_decay,
      decayAll: optim.decay_norms_and_biases,
      gradientCheckpointing,
    });
    this.cleanups.push(() => optimizer.dispose());
    const sampler = samplerFor(config, data);
    const notes = [...warnings, ...folder.warnings];
    if (folder.resumeFrom && state) {
      const table = await readTensorTable(join(folder.resumeFrom.dir, stateFolder, optimizerName));
      await optimizer.loadState(table, state.optimizerSteps);
      sampler.restore(state.sampler);
    }
    notes.push(...(await restoreLogs(folder, state)));

    const jsonl = config.trainer.logger.includes('jsonl') ? new JsonlSink({ runDir: folder.dir }) : undefined;
    const sinks = combineSinks([
      ...(jsonl ? [jsonl] : []),
      ...(config.trainer.logger.includes('tensorboard') ? [new TensorboardSink({ runDir: folder.dir })] : []),
      ...(config.trainer.logger.includes('console') ? [new ConsoleSink()] : []),
      ...(this.options.sinks ?? []),
    ]);
    const totalSteps = totalTrainingSteps(this.loaded, data.prompts.length);
    this.cleanups.push((status) => sinks.close({ status: status ?? 'interrupted' }));
    await sinks.start({
      runDir: folder.dir,
      title: `${config.algorithm.name} (${config.trainer.experiment_name})`,
      totalSteps,
      startStep: state?.step ?? 0,
      details: [
        ...startDetails(config, weights, data, validation),
        ...table('memory', memoryRows(plan)),
        ...table('chosen', choiceRows(plan)),
        ...(state ? [`resumed after step ${state.step} from ${folder.resumeFrom?.dir}`] : []),
        ...notes.map((note) => `note: ${note}`),
      ],
    });
    const engine = new LocalEngine({
      weights,
      tokenizer,
      maxSlots: config.rollout.max_slots,
      kvBudgetBytes,
      batchInvariant: config.rollout.batch_invariant,
    });
    const { profile } = this.options;
    const trace = profile ? new Trace(profile === true ? join(folder.dir, 'trace.json') : profile) : undefined;
    this.cleanups.push(() => trace?.close());
    const parts = {
      config,
      weights,
      optimizer,
      reference,
      initialModel: { path: state?.reference.path ?? initial.path, hash: state?.reference.hash ?? initialHash },
      engine,
      scorer,
      sampler,
      memory: { microBatchTokens, kvBudgetBytes },
      keepBuffers,
      prompts: data.prompts,
      validation: validation?.prompts ?? [],
      runDir: folder.dir,
      totalSteps,
      createdBy,
      sinks,
      jsonl,
      trace,
    };
    return new Trainer(parts, state);
  }
}

function isCustom(config: ResolvedConfig, reward: RewardFunction | undefined): boolean {
  return reward !== undefined || config.reward.path !== null;
}

function throwIfAborted(signal: AbortSignal): void {
  if (signal.aborted) throw new ArcherError('ARCHER_E_ABORTED', 'The run was interrupted.');
}

/** trainer.total_training_steps, or whole batches of trainer.total_epochs. */
export function totalTrainingSteps({ config }: LoadedConfig, numPrompts: number): number {
  const perEpoch = Math.max(1, Math.floor(numPrompts / config.data.train_batch_size));
  return config.trainer.total_training_steps ?? perEpoch * config.trainer.total_epochs;
}

/** dropped_rows.jsonl: the rows of the training data that no step will see. */
async function writeDropped(dir: string, dropped: DroppedRow[]): Promise<void> {
  const path = join(dir, 'dropped_rows.jsonl');
  try {
    await writeFile(path, dropped.map((row) => `${JSON.stringify(row)}\n`).join(''));
  } catch (error) {
    throw ioError('write', path, error);
  }
}

/** metrics.jsonl and timings.jsonl as they were at the checkpoint; empty where a run begins again. */
async function restoreLogs(folder: RunFolder, state: TrainerState | undefined): Promise<string[]> {
  const from = folder.resumeFrom ? dirname(folder.resumeFrom.dir) : folder.dir;
  const notes: string[] = [];
  for (const [name, bytes] of [
    [metricsName, state?.metricsBytes ?? 0],
    [timingsName, state?.timingsBytes ?? 0],
  ] as const) {
    const note = await restoreJsonl({ source: join(from, name), target: join(folder.dir, name), bytes });
    if (note) notes.push(note);
  }
  return notes;
}

function table(title: string, rows: Record<string, string>): string[] {
  return [`${title}:`, ...Object.entries(rows).map(([name, value]) => `  ${name.padEnd(30)} ${value}`)];
}

function startDetails(
  config: ResolvedConfig,
  weights: Weights,
  data: LoadedData,
  validation: LoadedData | undefined,
): string[] {
  const { train_batch_size: batch } = config.data;
  const updates = Math.ceil(batch / config.actor.ppo_mini_batch_size) * config.actor.ppo_epochs;
  return [
    `model: ${weights.folder.path}, ${(weights.numParameters / 1e6).toFixed(2)} M parameters, ${config.model.dtype}`,
    `training data: ${data.report.join('; ')}`,
    ...(validation ? [`validation data: ${validation.report.join('; ')}`] : []),
    `each step: ${batch} prompts x ${config.rollout.n} responses = ${batch * config.rollout.n}, in ${updates} ${updates === 1 ? 'update' : 'updates'}`,
  ];
}
