// `bench rollout`: sampling from a model beside other engines and the roofline of this machine, measured in the same rounds.
import { freemem } from 'node:os';
import { join } from 'node:path';
import type { ModelFolder } from '../model/folder.js';
import { packageRoot } from '../package-root.js';
import type { ContestantSpec } from './contestant.js';
import { type Dtype, environment, groupsWithin, type Memory } from './environment.js';
import { interleave } from './interleave.js';
import type { Python } from './programs.js';
import { floorMeasurement, floorSeconds, type SamplingShape, samplingWork } from './roofline.js';
import { type BenchRow, makeRow } from './statistics.js';

/** invariant is ours with rollout.batch_invariant. */
export const rolloutRivals = ['hf', 'llama.cpp', 'invariant'];

export interface RolloutBenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  batches: number[];
  dtypes: Dtype[];
  threads: number[];
  memory: Memory[];
  promptTokens: number;
  newTokens: number;
  /** Names out of rolloutRivals; those that lack what they need below are not run. */
  rivals: string[];
  python?: Python;
  /** Where node-llama-cpp is installed, and GGUF files of the model. */
  llama?: string;
  gguf?: Partial<Record<Dtype, string>>;
  pairs: number;
  /** Path of archer-bench-roofline. */
  program: string;
  /** Before the start. */
  load: number;
  busyCores: number;
  signal?: AbortSignal;
  onProgress?: (what: string) => void;
  /** A rival that failed and is left out. */
  onDropped?: (setting: string, name: string, reason: string) => void;
}

interface Setting extends SamplingShape {
  dtype: Dtype;
  threads: number;
  memory: Memory;
}

/** Rows as they are measured, setting by setting: first the roofline, then the rivals. */
export async function* benchRollout(options: RolloutBenchOptions): AsyncGenerator<BenchRow[]> {
  for (const setting of settingsOf(options)) {
    const { batch, promptTokens, newTokens, dtype, threads, memory } = setting;
    const shape = `${options.modelName} b${batch} ${promptTokens}+${newTokens}`;
    const name = `${shape} ${dtype} ${threads === 1 ? '1 thread' : `${threads} threads`} ${memory} memory`;
    const work = samplingWork(options.model.nativeConfig, setting, bytesOf(dtype));
    // Weights, a packed copy of them, what is sampled, and libraries.
    const bytes = 5e8 + 2 * work.weightBytes + kvCacheBytes(options.model, setting);
    const rivals = rivalsOf(options, dtype);
    const groups = groupsWithin(rivals, {
      always: bytes + work.weightBytes,
      bytesOf: () => bytes,
      budget: 0.7 * freemem(),
    });
    for (const [i, group] of groups.entries()) {
      const { measurements, dropped, foreignCores } = await interleave(contestants(options, group, setting), {
        pairs: options.pairs,
        signal: options.signal,
        onProgress: (what) => options.onProgress?.(`${name}: ${what}`),
      });
      for (const one of dropped) options.onDropped?.(name, one.name, one.reason);
      const [ours, measured, ...others] = measurements;
      const floor = floorMeasurement(measured!, (rates) => ({ generate: floorSeconds(work, rates) }));
      const { load, busyCores } = options;
      const circumstances = { load, busyCores, foreignCores, threads };
      const context = {
        bench: 'rollout',
        device: 'cpu',
        shape,
        dtype,
        memory,
        tokens: batch * newTokens,
        ...circumstances,
      };
      // A second group has its own measurement of the machine, which serves its own rivals alone.
      yield [...(i === 0 ? [floor] : []), ...others].map((rival) => makeRow(context, ours!, rival, floor));
    }
  }
}

function settingsOf({ batches, dtypes, threads, memory, promptTokens, newTokens }: RolloutBenchOptions): Setting[] {
  const shapes = batches.map((batch) => ({ batch, promptTokens, newTokens }));
  return memory.flatMap((one) =>
    shapes.flatMap((shape) =>
      dtypes.flatMap((dtype) => threads.map((count) => ({ ...shape, dtype, threads: count, memory: one }))),
    ),
  );
}

const bytesOf = (dtype: Dtype) => (dtype === 'bf16' ? 2 : 4);

function kvCacheBytes({ nativeConfig }: ModelFolder, { batch, promptTokens, newTokens, dtype }: Setting): number {
  const { numLayers, numKvHeads, headDim } = nativeConfig;
  return batch * (promptTokens + newTokens) * 2 * numLayers * numKvHeads * headDim * bytesOf(dtype);
}

function rivalsOf({ rivals, python, llama, gguf }: RolloutBenchOptions, dtype: Dtype): string[] {
  const isThere: Record<string, boolean> = {
    hf: python !== undefined,
    'llama.cpp': llama !== undefined && gguf?.[dtype] !== undefined,
    invariant: dtype === 'float32', // in bfloat16 tiles nothing depends on the batch anyway
  };
  return rivals.filter((name) => isThere[name]);
}

function contestants(options: RolloutBenchOptions, rivals: string[], setting: Setting): ContestantSpec[] {
  const { model, program, python, llama = '', gguf } = options;
  const { dtype, threads, memory } = setting;
  const common = ['--dtype', dtype, '--threads', String(threads)];
  const task = [
    '--model',
    model.path,
    ...common,
    '--batch',
    String(setting.batch),
    '--prompt-tokens',
    String(setting.promptTokens),
    '--new-tokens',
    String(setting.newTokens),
  ];
  const start = (name: string, command: string[], isRequired = false): ContestantSpec => ({
    name,
    isRequired,
    command: 'env',
    args: [...environment(threads, memory), ...command],
  });
  const node = (file: string) => [process.execPath, join(packageRoot, 'dist/bench', file)];
  const { hiddenSize, intermediateSize } = model.nativeConfig;
  const { weightBytes } = samplingWork(model.nativeConfig, setting, bytesOf(dtype));
  const sizes = [
    '--bytes',
    String(weightBytes),
    '--hidden',
    String(hiddenSize),
    '--columns',
    String(2 * intermediateSize),
  ];
  const rivalCommands: Record<string, () => string[]> = {
    hf: () => [python!.command, join(packageRoot, 'bench/rivals_rollout.py'), '--serve', 'hf', ...task],
    'llama.cpp': () => [...node('serve-llama.js'), ...task, '--llama', llama, '--gguf', gguf![dtype]!],
    invariant: () => [...node('serve-rollout.js'), ...task, '--batch-invariant', 'true'],
  };
  return [
    start('archer', [...node('serve-rollout.js'), ...task], true),
    start('roofline', [program, ...common, ...sizes], true),
    ...rivals.map((name) => start(name, rivalCommands[name]!())),
  ];
}
