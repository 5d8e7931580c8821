// val.benchmarks, or the files of data.val_files, to what an evaluation runs: problems, how each is sampled, who judges.
import { basename, dirname, extname } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import { ArcherError } from '../errors.js';
import type { SamplingOptions } from '../rollout/types.js';
import { evaluationSampling } from '../train/evaluate.js';

export interface Benchmark {
  name: string;
  files: string[];
  /** The data section as it is for this benchmark. */
  data: ResolvedConfig['data'];
  reward: ResolvedConfig['reward'];
  sampling: SamplingOptions;
  /** 0: all problems. */
  maxSamples: number;
}

/** Keys of the command line that win over what a benchmark says itself. */
export interface Overrides {
  n?: number | undefined;
  temperature?: number | undefined;
  maxResponseLength?: number | undefined;
}

type Entry = ResolvedConfig['val']['benchmarks'][number];

/** @throws ARCHER_E_CONFIG where there is nothing to evaluate on */
export function benchmarksOf(config: ResolvedConfig, overrides: Overrides = {}): Benchmark[] {
  const { val } = config;
  const entries = val.benchmarks.length > 0 ? val.benchmarks : filesAsBenchmarks(config.data.val_files);
  if (entries.length === 0) {
    const remedy = 'name files with --data or data.val_files, or benchmarks with val.benchmarks';
    throw new ArcherError('ARCHER_E_CONFIG', `There is nothing to evaluate on; ${remedy}.`);
  }
  return entries.map((entry) => {
    const data = {
      ...config.data,
      columns: { ...config.data.columns, ...entry.columns },
      ...(entry.prompt_template && { prompt_templates: { default: entry.prompt_template }, instruction: null }),
      system_prompt: entry.system_prompt ?? config.data.system_prompt,
      max_response_length: overrides.maxResponseLength ?? entry.max_response_length ?? config.data.max_response_length,
    };
    const sampled = {
      ...val,
      n: overrides.n ?? entry.n ?? val.n,
      temperature: overrides.temperature ?? entry.temperature ?? val.temperature,
      top_p: entry.top_p ?? val.top_p,
    };
    return {
      name: entry.name,
      files: entry.files,
      data,
      reward: { ...config.reward, name: entry.reward ?? config.reward.name },
      sampling: evaluationSampling({ val: sampled, data, rollout: config.rollout }),
      maxSamples: entry.max_samples ?? val.max_samples,
    };
  });
}

/** Every file is a benchmark called <folder>/<file name>. */
function filesAsBenchmarks(files: string[]): Entry[] {
  return [...new Set(files)].map((file) => {
    const folder = basename(dirname(file));
    const stem = basename(file, extname(file));
    return { name: folder === '' || folder === '.' ? stem : `${folder}/${stem}`, files: [file] };
  });
}
