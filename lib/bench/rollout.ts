// `bench rollout`: sampling from a model beside other engines and the roofline of this machine, measured in the same rounds.
import type { ModelFolder } from '../model/folder.js';
import { type Dtype, environment } from './environment.js';
import { floorMeasurement, floorSeconds, type SamplingShape, samplingWork } from './roofline.js';
import type { BenchRow } from './statistics.js';
import {
  argumentsOf,
  type BenchOptions,
  nodeProgram,
  pythonProgram,
  runTrial,
  type Setting,
  settingsOf,
  type Trial,
} from './trial.js';

/** invariant is ours with rollout.batch_invariant. */
export const rolloutRivals = ['hf', 'llama.cpp', 'invariant'];

/** rivals: names out of rolloutRivals. program: archer-bench-roofline. */
export interface RolloutBenchOptions extends BenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  batches: number[];
  promptTokens: number;
  newTokens: number;
  /** Where node-llama-cpp is installed, and GGUF files of the model. */
  llama?: string;
  gguf?: Partial<Record<Dtype, string>>;
}

/** Rows as they are measured, setting by setting: first the roofline, then the rivals. */
export async function* benchRollout(options: RolloutBenchOptions): AsyncGenerator<BenchRow[]> {
  const { batches, promptTokens, newTokens } = options;
  const shapes = batches.map((batch) => ({ batch, promptTokens, newTokens }));
  for (const [shape, setting] of settingsOf(shapes, options))
    yield* runTrial(options, trialOf(options, shape, setting));
}

function trialOf(options: RolloutBenchOptions, shape: SamplingShape, setting: Setting): Trial {
  const { model, modelName, program, python, llama = '', gguf } = options;
  const { batch, promptTokens, newTokens } = shape;
  const { dtype, threads, memory } = setting;
  const { hiddenSize, intermediateSize } = model.nativeConfig;
  const work = samplingWork(model.nativeConfig, shape, bytesOf(dtype));
  // Weights, a packed copy of them, what is sampled, and libraries.
  const bytes = 5e8 + 2 * work.weightBytes + kvCacheBytes(model, shape, dtype);
  const variables = environment(threads, memory);
  const common = argumentsOf({ dtype, threads });
  const task = [
    ...argumentsOf({ model: model.path }),
    ...common,
    ...argumentsOf({ batch, 'prompt-tokens': promptTokens, 'new-tokens': newTokens }),
  ];
  const sizes = argumentsOf({ bytes: work.weightBytes, hidden: hiddenSize, columns: 2 * intermediateSize });
  const archer = [...variables, ...nodeProgram('serve-rollout.js'), ...task];
  const rivalArgs: Record<string, () => string[]> = {
    hf: () => [...variables, ...pythonProgram(python, 'rivals_rollout.py'), '--serve', 'hf', ...task],
    'llama.cpp': () => [
      ...variables,
      ...nodeProgram('serve-llama.js'),
      ...task,
      ...argumentsOf({ llama, gguf: gguf![dtype]! }),
    ],
    invariant: () => [...archer, '--batch-invariant', 'true'],
  };
  return {
    bench: 'rollout',
    shape: `${modelName} b${batch} ${promptTokens}+${newTokens}`,
    setting,
    tokens: batch * newTokens,
    rivals: rivalsOf(options, dtype),
    ourBytes: bytes + work.weightBytes,
    rivalBytes: () => bytes,
    archer,
    floor: { name: 'roofline', args: [...variables, program, ...common, ...sizes] },
    rivalArgs: (rival) => rivalArgs[rival]!(),
    floorOf: (measured) => floorMeasurement(measured, (rates) => ({ generate: floorSeconds(work, rates) })),
  };
}

const bytesOf = (dtype: Dtype) => (dtype === 'bf16' ? 2 : 4);

function kvCacheBytes({ nativeConfig }: ModelFolder, shape: SamplingShape, dtype: Dtype): number {
  const { batch, promptTokens, newTokens } = shape;
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
