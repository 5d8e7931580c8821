// Everything that a run needs before its first step: model, tokenizer, data, reward, and the checks that must fail early.
import type { ResolvedConfig } from '../config/index.js';
import { type Dataset, loadDataset } from '../data/dataset.js';
import { type EncodedPrompt, encodePrompts } from '../data/encode-prompts.js';
import { createMixture } from '../data/mixture.js';
import { PassRateFilter, readPassRates } from '../data/pass-rates.js';
import { type PromptTemplates, promptPlace, withTemplates } from '../data/prompt-template.js';
import { createSampler, type Sampler } from '../data/sampler.js';
import type { Tokenizer } from '../data/tokenizer.js';
import { ArcherError } from '../errors.js';
import { resolveDataPath } from '../hub/resolve.js';
import { bundledTask } from '../model/bundled.js';
import { createScorer } from '../reward/score.js';
import { selfTestReward } from '../reward/self-test.js';
import type { RewardFunction, Scorer } from '../reward/types.js';
import { DataPrompt } from './data-prompt.js';
import { describeData } from './data-report.js';
import type { TrainPrompt } from './types.js';

export interface LoadedData {
  dataset: Dataset;
  prompts: TrainPrompt[];
  /** Prompts of each data file, in the order of the files and of `prompts`. */
  perFile: number[];
  /** Lines for the start-up report: rows, what was dropped or cut and where. */
  report: string[];
  /** Every row that was left out: file, line and why. */
  dropped: DroppedRow[];
  /** Tells data sets apart that give other prompts. */
  hash: string;
}

export interface DroppedRow {
  file: string;
  /** Line of a JSONL file, row of a parquet file; from 1. */
  line: number;
  reason: 'overlong' | 'pass_rate';
  /** In tokens. */
  length?: number;
  passRate?: number;
}

/** `bundled` among data files stands for the bundled task's split, hf://datasets/… for a pulled file. */
export function resolveDataFiles(files: string[], split: 'train' | 'test'): string[] {
  return files.map((file) => (file === 'bundled' ? bundledTask(split) : resolveDataPath(file)));
}

/** Reads data files; every prompt stands in the template of its source. */
export async function loadRows(files: string[], data: ResolvedConfig['data']): Promise<Dataset> {
  const { prompt, answer, source } = data.columns;
  const dataset = await loadDataset({
    files,
    columns: { prompt: prompt ?? undefined, answer: answer ?? undefined, source: source ?? undefined },
  });
  return withTemplates(dataset, templatesOf(data));
}

function templatesOf({ instruction, prompt_templates: templates }: ResolvedConfig['data']): PromptTemplates {
  return instruction === null ? templates : { default: `${promptPlace}\n${instruction}`, ...templates };
}

/** Reads data files, renders and encodes every prompt that the filter keeps. */
export async function loadPrompts(
  files: string[],
  tokenizer: Tokenizer,
  data: ResolvedConfig['data'],
  signal?: AbortSignal,
  filter?: PassRateFilter,
): Promise<LoadedData> {
  const dataset = await loadRows(files, data);
  const encoded = await encodePrompts(dataset, tokenizer, {
    applyChatTemplate: data.apply_chat_template,
    systemPrompt: data.system_prompt ?? undefined,
    templateArguments: data.apply_chat_template_kwargs,
    maxPromptLength: data.max_prompt_length,
    overlongPrompts: data.overlong_prompts,
    keep: filter && ((row) => filter.keep(row)),
    signal,
  });
  return {
    dataset,
    prompts: encoded.prompts.map((one) => new DataPrompt(dataset, one)),
    perFile: promptsPerFile(dataset, encoded.prompts),
    report: describeData(dataset, data, encoded.report, filter),
    dropped: [
      ...encoded.report.dropped.map((row): DroppedRow => ({ ...row, reason: 'overlong' })),
      ...(filter?.dropped ?? []).map((row): DroppedRow => ({ ...row, reason: 'pass_rate' })),
    ],
    hash: filter ? `${dataset.hash} ${filter.rates.hash}` : dataset.hash,
  };
}

/** The training prompts, and the held-out ones that a validation takes. */
export async function loadTrainingData(
  { data, val }: ResolvedConfig,
  tokenizer: Tokenizer,
  signal?: AbortSignal,
): Promise<{ data: LoadedData; validation: LoadedData | undefined }> {
  const { file, above, below } = data.pass_rates;
  const filter = file === null ? undefined : new PassRateFilter(readPassRates(file), { above, below });
  const training = await loadPrompts(resolveDataFiles(data.train_files, 'train'), tokenizer, data, signal, filter);
  if (filter?.withoutRate === training.dataset.rows) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `${file} has the pass rate of none of the ${training.dataset.rows} rows of data.train_files; it was measured on other data.`,
    );
  }
  const files = resolveDataFiles(data.val_files, 'test');
  if (files.length === 0) return { data: training, validation: undefined };
  const validation = await loadPrompts(files, tokenizer, data, signal);
  const prompts = val.max_samples > 0 ? validation.prompts.slice(0, val.max_samples) : validation.prompts;
  return { data: training, validation: { ...validation, prompts } };
}

/** The order in which a run draws its prompts: every one once an epoch, or files by data.train_file_weights. */
export function samplerFor({ data, trainer }: ResolvedConfig, { prompts, perFile }: LoadedData): Sampler {
  const common = { seed: trainer.seed, shuffle: data.shuffle };
  if (data.train_file_weights.length === 0) return createSampler({ ...common, size: prompts.length });
  const empty = perFile.indexOf(0);
  if (empty !== -1) {
    throw new ArcherError(
      'ARCHER_E_DATA',
      `No prompt of ${data.train_files[empty]} is left, but data.train_file_weights gives it a share of every batch.`,
    );
  }
  return createMixture({ ...common, sizes: perFile, weights: data.train_file_weights });
}

function promptsPerFile(dataset: Dataset, prompts: EncodedPrompt[]): number[] {
  let end = 0;
  let at = 0;
  return dataset.report.files.map(({ rows }) => {
    end += rows;
    const first = at;
    while (at < prompts.length && (prompts[at] as EncodedPrompt).index < end) at += 1;
    return at - first;
  });
}

export async function makeScorer(config: ResolvedConfig, reward: RewardFunction | undefined): Promise<Scorer> {
  const { name, path, timeout_seconds: timeoutSeconds, workers, math, code } = config.reward;
  const common = {
    timeoutSeconds,
    workers: workers === 0 ? undefined : workers,
    math,
    code: {
      testSeconds: code.test_seconds,
      memoryMiB: code.memory_mb,
      maxTests: code.max_tests,
      interpreter: code.interpreter,
      isolation: code.isolation,
    },
  };
  if (reward) return createScorer({ ...common, fn: reward });
  if (path !== null) return createScorer({ ...common, path });
  return createScorer({ ...common, name: name === 'auto' ? undefined : name });
}

/** Gold answers must earn 1 and a wrong one 0, or training does not start. */
export async function checkReward(
  scorer: Scorer,
  data: LoadedData,
  options: { custom: boolean; signal?: AbortSignal },
): Promise<void> {
  await selfTestReward(scorer, data.dataset, options);
}
