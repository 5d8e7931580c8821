// Everything that a run needs before its first step: model, tokenizer, data, reward, and the checks that must fail early.
import type { ResolvedConfig } from '../config/index.js';
import { type Dataset, loadDataset } from '../data/dataset.js';
import { encodePrompts } from '../data/encode-prompts.js';
import type { Tokenizer } from '../data/tokenizer.js';
import type { Row } from '../data/types.js';
import { bundledTask } from '../model/bundled.js';
import { createScorer } from '../reward/score.js';
import { selfTestReward } from '../reward/self-test.js';
import type { RewardFunction, Scorer } from '../reward/types.js';
import type { TrainPrompt } from './types.js';

export interface LoadedData {
  dataset: Dataset;
  prompts: TrainPrompt[];
  /** Lines for the start-up report: rows, what was dropped or cut and where. */
  report: string[];
}

/** `bundled` among data files stands for the bundled task's split. */
export function resolveDataFiles(files: string[], split: 'train' | 'test'): string[] {
  return files.map((file) => (file === 'bundled' ? bundledTask(split) : file));
}

/** Reads data files, renders and encodes every prompt. */
export async function loadPrompts(
  files: string[],
  tokenizer: Tokenizer,
  data: ResolvedConfig['data'],
  signal?: AbortSignal,
): Promise<LoadedData> {
  const { prompt, answer, source } = data.columns;
  const dataset = await loadDataset({
    files,
    columns: { prompt: prompt ?? undefined, answer: answer ?? undefined, source: source ?? undefined },
  });
  const instructed: Dataset = data.instruction === null ? dataset : withInstruction(dataset, data.instruction);
  const template = { applyChatTemplate: data.apply_chat_template, systemPrompt: data.system_prompt ?? undefined };
  const encoded = await encodePrompts(instructed, tokenizer, {
    ...template,
    maxPromptLength: data.max_prompt_length,
    overlongPrompts: data.overlong_prompts,
    signal,
  });
  const prompts = encoded.prompts.map((one): TrainPrompt => {
    const row = instructed.get(one.index);
    return {
      promptKey: one.promptKey,
      ids: one.ids,
      row,
      text: row.prompt.findLast((message) => message.role === 'user')?.content ?? '',
    };
  });
  const { lengths, dropped, truncated } = encoded.report;
  const report = [
    `${prompts.length} prompts of ${dataset.rows} rows, ${lengths.min} to ${lengths.max} tokens (mean ${lengths.mean.toFixed(0)})`,
  ];
  for (const [what, cases] of [
    ['dropped', dropped],
    ['cut at the left', truncated],
  ] as const) {
    if (cases.length === 0) continue;
    const named = cases.slice(0, 3).map((one) => `${one.file} line ${one.line} (${one.length} tokens)`);
    report.push(`${cases.length} ${what} as longer than ${data.max_prompt_length} tokens: ${named.join(', ')}${cases.length > 3 ? ', …' : ''}`);
  }
  const empty = dataset.report.emptyGroundTruth;
  if (empty.length > 0) {
    report.push(`${empty.length} rows have an empty ground truth, the first at ${empty[0]?.file} line ${empty[0]?.line}: no verifier can reward them`);
  }
  return { dataset, prompts, report };
}

/** The instruction stands at the end of the last user message. */
function withInstruction(dataset: Dataset, instruction: string): Dataset {
  const get = (i: number): Row => {
    const row = dataset.get(i);
    const last = row.prompt.findLastIndex((message) => message.role === 'user');
    const prompt = row.prompt.map((message, at) =>
      at === last ? { ...message, content: `${message.content}\n${instruction}` } : message,
    );
    return { ...row, prompt };
  };
  return { ...dataset, rows: dataset.rows, report: dataset.report, hash: dataset.hash, get };
}

export async function makeScorer(config: ResolvedConfig, reward: RewardFunction | undefined): Promise<Scorer> {
  const { name, path, timeout_seconds: timeoutSeconds, workers } = config.reward;
  const common = { timeoutSeconds, workers: workers === 0 ? undefined : workers };
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
