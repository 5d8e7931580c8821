// The training loop, as archer.md 6 states it: prompts -> responses -> verdicts -> groups kept -> advantages and old/
// reference log-probs -> ppo_epochs × mini-batches -> metrics, checkpoint, evaluation. One step is one call of `step`.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { type RolloutDiff, rolloutAgrees, rolloutDiffLimit } from '../algorithm/rollout-diff.js';
import { learningRate } from '../algorithm/schedule.js';
import { writeCheckpoint } from '../checkpoint/store.js';
import { lossOptions, type ResolvedConfig } from '../config/index.js';
import type { Sampler, SamplerState } from '../data/sampler.js';
import type { JsonlSink } from '../metrics/jsonl.js';
import type { MetricsSink, StepRecord } from '../metrics/sink.js';
import { buildInfo, memoryStats, resolveThreads } from '../native/engine.js';
import type { Weights } from '../native/policy.js';
import type { Optimizer } from '../native/trainer.js';
import type { Scorer } from '../reward/types.js';
import type { RolloutEngine } from '../rollout/types.js';
import { type Collected, collectGroups, type ShowProgress } from './collect.js';
import { evaluate } from './evaluate.js';
import { makeExperience } from './experience.js';
import { writeAdapterFiles, writeModelFiles } from './model-files.js';
import { ResponseLengths } from './response-lengths.js';
import { writeRollouts } from './rollout-dump.js';
import { optimizerName, stateFolder, type TrainerState, writeState } from './state.js';
import { stepMetrics } from './step-metrics.js';
import { Stopwatch } from './stopwatch.js';
import type { Trace } from './trace.js';
import type { TrainPrompt } from './types.js';
import { updatePolicy } from './update.js';

/** What the loop works with; lib/train/run.ts puts it together. */
export interface TrainerParts {
  config: ResolvedConfig;
  weights: Weights;
  optimizer: Optimizer;
  /** The frozen initial model; undefined where every KL coefficient is 0. */
  reference: Weights | undefined;
  /** Path and content hash of the initial model, for the state. */
  initialModel: { path: string; hash: string };
  engine: RolloutEngine;
  scorer: Scorer;
  sampler: Sampler;
  /** What the memory plan has chosen and results depend on, if only in their last bits. */
  memory: Required<TrainerState>['memory'];
  /** Of MemoryChoices. */
  keepBuffers: boolean;
  prompts: TrainPrompt[];
  validation: TrainPrompt[];
  runDir: string;
  totalSteps: number;
  createdBy: string;
  sinks: Required<MetricsSink>;
  jsonl: JsonlSink | undefined;
  /** Where the time goes; undefined where nobody asked. */
  trace?: Trace | undefined;
}

export class Trainer {
  /** Completed training steps. */
  private done: number;
  /** The sampler's cursor after the last completed step: what a checkpoint must hold even in the middle of the next. */
  private cursor: SamplerState;
  private lastSaved: number;
  /** After the last completed step, like the cursor. */
  private readonly responseLengths: ResponseLengths;
  /** Metrics of a completed step whose validation has not ended yet; an interruption there must not lose them. */
  private pending: Record<string, number> | undefined;
  /** What actor.old_log_prob auto has found. It stays: a policy whose two engines have parted once is not trusted again. */
  private rolloutDisagrees: boolean;

  constructor(
    private readonly parts: TrainerParts,
    start: Partial<Pick<TrainerState, 'step' | 'pending' | 'responseLengths' | 'rolloutDisagrees'>> = {},
  ) {
    this.done = start.step ?? 0;
    this.lastSaved = this.done;
    this.pending = start.pending;
    this.responseLengths = new ResponseLengths(start.responseLengths);
    this.rolloutDisagrees = start.rolloutDisagrees ?? false;
    this.cursor = parts.sampler.state();
  }

  get completedSteps(): number {
    return this.done;
  }

  get isFinished(): boolean {
    return this.done >= this.parts.totalSteps;
  }

  /** What is due before the next step: the validation of the initial model, or one that an interruption cut short. */
  async validateFirst(signal: AbortSignal): Promise<StepRecord | undefined> {
    const { config, validation } = this.parts;
    const isInitial = this.done === 0 && config.trainer.val_before_train && validation.length > 0;
    if (!isInitial && !this.pending) return undefined;
    const stopwatch = new Stopwatch(this.parts.trace);
    return this.record({ ...this.pending, ...(await this.validate(stopwatch, signal)) }, stopwatch);
  }

  /**
   * One training step. An abort takes effect until the update begins, and leaves the state of the step before; the
   * update itself always ends, because half of one could not be saved.
   */
  async step(signal: AbortSignal): Promise<StepRecord> {
    const record = await this.traced(`step ${this.done + 1}`, () => this.runStep(signal));
    this.parts.trace?.flush();
    return record;
  }

  private async runStep(signal: AbortSignal): Promise<StepRecord> {
    const { config, sampler, optimizer, weights, sinks, memory } = this.parts;
    const step = this.done + 1;
    const stopwatch = new Stopwatch(this.parts.trace);
    const progress: ShowProgress = (stage, fraction, detail) => sinks.progress({ step, stage, fraction, detail });

    const collected = await this.collect(step, stopwatch, signal, progress);
    await this.endPhase();
    if (collected.kept.length === 0) sinks.note(nothingLeft(step, collected));
    const { old_log_prob: mode } = config.actor;
    const recomputeOldLogProbs = mode === 'recompute' || (mode === 'auto' && this.rolloutDisagrees);
    const samples = await makeExperience(collected.kept, {
      ...this.parts,
      recomputeOldLogProbs,
      maxTokenLen: memory.microBatchTokens,
      stopwatch,
      signal,
      progress,
    });
    await this.endPhase();
    const lr = this.learningRate();
    const loss = lossOptions(config);
    const update = await stopwatch.time('update_actor', () =>
      updatePolicy(samples, {
        weights,
        optimizer,
        loss,
        lr,
        ppoEpochs: config.actor.ppo_epochs,
        miniBatchSize: config.actor.ppo_mini_batch_size,
        maxTokenLen: memory.microBatchTokens,
        gradClip: config.actor.grad_clip,
        seed: config.trainer.seed,
        step,
        onProgress: (done, total) => progress('update', done / total),
      }),
    );
    await this.endPhase();
    this.done = step;
    this.cursor = sampler.state();
    this.responseLengths.record(collected.sampled);
    if (mode === 'auto' && !this.rolloutDisagrees && !rolloutAgrees(update.rolloutDiff, config.model.dtype)) {
      this.rolloutDisagrees = true;
      sinks.note(rolloutLeft(step, update.rolloutDiff, config.model.dtype));
    }

    const metrics = stepMetrics({
      step,
      epoch: sampler.epoch,
      collected,
      samples,
      update,
      lr,
      hasReference: this.parts.reference !== undefined,
      recomputedOldLogProbs: recomputeOldLogProbs,
    });
    if (config.trainer.rollout_data_dir) await writeRollouts(config.trainer.rollout_data_dir, step, collected, samples);
    if (this.isDue(config.trainer.test_freq)) {
      this.pending = { ...metrics };
      Object.assign(metrics, await this.validate(stopwatch, signal));
    }
    const record = await this.record(metrics, stopwatch);
    if (this.isDue(config.trainer.save_freq)) await this.save();
    return record;
  }

  /** Where memory is short a phase gives its own back before the next begins: the peak is the largest of them, not their sum. */
  private async endPhase(): Promise<void> {
    if (!this.parts.keepBuffers) await this.parts.optimizer.releaseMemory();
  }

  private traced<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    return this.parts.trace ? this.parts.trace.time(name, work) : work();
  }

  /** Writes a checkpoint of the last completed step, unless that one is there already. */
  async save(): Promise<void> {
    if (this.lastSaved !== this.done) await this.traced('save', () => this.writeCheckpoint());
  }

  private async writeCheckpoint(): Promise<void> {
    const { config, weights, optimizer, sinks, runDir, jsonl, initialModel, createdBy } = this.parts;
    sinks.progress({ step: this.done, stage: 'save' });
    await sinks.flush();
    await writeCheckpoint({
      runDir,
      step: this.done,
      keep: config.trainer.max_ckpt_to_keep ?? 0,
      createdBy,
      facts: { ...buildInfo(), numThreads: resolveThreads(config.num_threads), maxSlots: config.rollout.max_slots },
      write: async (dir) => {
        await (weights.folder.adapter ? writeAdapterFiles : writeModelFiles)(dir, weights);
        await mkdir(join(dir, stateFolder));
        await optimizer.saveState(join(dir, stateFolder, optimizerName));
        await writeState(dir, {
          format: 1,
          step: this.done,
          sampler: this.cursor,
          optimizerSteps: optimizer.steps,
          metricsBytes: jsonl?.bytes().metrics ?? 0,
          timingsBytes: jsonl?.bytes().timings ?? 0,
          reference: initialModel,
          memory: this.parts.memory,
          responseLengths: this.responseLengths.toJSON(),
          rolloutDisagrees: this.rolloutDisagrees,
          pending: this.pending,
        });
      },
    });
    this.lastSaved = this.done;
  }

  /** Of the step that comes next. */
  private learningRate(): number {
    const { optim } = this.parts.config.actor;
    const schedule = {
      lr: optim.lr,
      warmupSteps: optim.lr_warmup_steps,
      warmupFromZero: optim.lr_warmup_from_zero,
      kind: optim.lr_scheduler,
      totalSteps: this.parts.totalSteps,
    };
    return learningRate(schedule, this.done);
  }

  private async record(metrics: Record<string, number>, stopwatch: Stopwatch): Promise<StepRecord> {
    const timings = stopwatch.timings();
    const seconds = timings['timing_s/step'] ?? 0;
    timings['perf/time_per_step'] = seconds;
    timings['perf/throughput'] = (metrics['perf/total_num_tokens'] ?? 0) / Math.max(seconds, 1e-9);
    timings['perf/max_memory_gb'] = memoryStats().peakRssBytes / 2 ** 30;
    const record = { step: this.done, metrics, timings };
    await this.parts.sinks.step(record);
    this.pending = undefined;
    return record;
  }

  private collect(
    step: number,
    stopwatch: Stopwatch,
    signal: AbortSignal,
    progress: ShowProgress,
  ): Promise<Collected> {
    return collectGroups(step, { ...this.parts, responseLengths: this.responseLengths, stopwatch, signal, progress });
  }

  /** Every `freq` steps and after the last one. */
  private isDue(freq: number): boolean {
    return freq > 0 && (this.done % freq === 0 || this.isFinished);
  }

  private async validate(stopwatch: Stopwatch, signal: AbortSignal): Promise<Record<string, number>> {
    const { config, validation, engine, scorer, sinks } = this.parts;
    if (validation.length === 0) return {};
    sinks.progress({ step: this.done, stage: 'testing', fraction: 0 });
    const bySource = await stopwatch.time('testing', () =>
      evaluate({
        config,
        prompts: validation,
        engine,
        scorer,
        signal,
        onProgress: (done, total, detail) =>
          sinks.progress({ step: this.done, stage: 'testing', fraction: done / total, ...(detail && { detail }) }),
      }),
    );
    return Object.fromEntries(
      Object.entries(bySource).flatMap(([source, metrics]) =>
        Object.entries(metrics).map(([name, value]) => [`val-core/${source}/${name}`, value]),
      ),
    );
  }
}

/** A step without an update is said, not silently skipped. */
function nothingLeft(step: number, { sampled, numGenBatches }: Collected): string {
  const rounds = numGenBatches === 1 ? '' : ` in ${numGenBatches} sampling rounds`;
  return (
    `step ${step}: no update: in each of the ${sampled.length} groups${rounds} all responses got the same reward. ` +
    'If that goes on, the problems are too easy or too hard for the model, or rollout.n is too small.'
  );
}

/** From this step on auto recomputes, and says why. */
function rolloutLeft(step: number, { logProbs, tokens }: RolloutDiff, dtype: keyof typeof rolloutDiffLimit): string {
  return (
    `step ${step}: the log-probs as sampled are ${(logProbs / tokens).toPrecision(3)} nats from the training engine's in the ` +
    `mean, beyond ${rolloutDiffLimit[dtype]} (${dtype}): actor.old_log_prob auto recomputes them from the next step on.`
  );
}
