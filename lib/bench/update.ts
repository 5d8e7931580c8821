// `bench update`: forward, Archer loss and backward of a packed micro-batch, beside Hugging Face with autograd and the rate of the
// bare matrix products, measured in the same rounds.
import { ArcherError } from '../errors.js';
import type { ModelFolder } from '../model/folder.js';
import { environment } from './environment.js';
import { layerName, type MicroBatchShape, rateMeasurement, trainingWork } from './products.js';
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

/** hf: float32 weights under bfloat16 autocast (for float32: without); hf-bf16: weights and gradients in bfloat16. */
export const updateRivals = ['hf', 'hf-bf16'];

/** Sequences x tokens of each, as in 4x256. @throws ArcherError ARCHER_E_CONFIG */
export function microBatchFromName(name: string, promptTokens: number): MicroBatchShape {
  const [sequences = 0, tokens = 0] = /^([1-9]\d{0,5})x([1-9]\d{0,5})$/.exec(name)?.slice(1).map(Number) ?? [];
  if (sequences > 0 && tokens > promptTokens) return { sequences, tokens, promptTokens };
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `--shapes ${name}: write sequences x tokens as in 4x256, with more tokens than the ${promptTokens} of --prompt-tokens.`,
  );
}

/** rivals: names out of updateRivals. program: archer-bench-products. */
export interface UpdateBenchOptions extends BenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  shapes: MicroBatchShape[];
}

/** Rows as they are measured, setting by setting: first the rate of the products, then the rivals. */
export async function* benchUpdate(options: UpdateBenchOptions): AsyncGenerator<BenchRow[]> {
  for (const [shape, setting] of settingsOf(options.shapes, options)) {
    yield* runTrial(options, trialOf(options, shape, setting));
  }
}

function trialOf(options: UpdateBenchOptions, shape: MicroBatchShape, setting: Setting): Trial {
  const { model, modelName, program, python, rivals } = options;
  const { sequences, tokens, promptTokens } = shape;
  const { dtype, threads, memory } = setting;
  const work = trainingWork(model.nativeConfig, shape);
  const variables = environment(threads, memory);
  const common = argumentsOf({ dtype, threads });
  const task = [
    ...argumentsOf({ model: model.path }),
    ...common,
    ...argumentsOf({ sequences, tokens, 'prompt-tokens': promptTokens }),
  ];
  const products = argumentsOf({ products: work.layers.map(layerName).join(',') });
  return {
    bench: 'update',
    shape: `${modelName} ${sequences}x${tokens}`,
    setting,
    tokens: sequences * tokens,
    rivals: python ? rivals.filter((rival) => rival !== 'hf-bf16' || dtype === 'bf16') : [],
    ourBytes: 1e9 + peakBytes(model, shape) / 2,
    rivalBytes: () => peakBytes(model, shape),
    archer: [...variables, ...nodeProgram('serve-update.js'), ...task],
    floor: { name: 'gemm-rate', args: [...variables, program, ...common, ...products] },
    rivalArgs: (rival) => [
      ...variables,
      ...pythonProgram(python, 'rivals_update.py'),
      ...argumentsOf({ serve: rival }),
      ...task,
    ],
    floorOf: (measured) => rateMeasurement(measured, work),
  };
}

// Roughly, of autograd: weights and gradients, some 16 numbers of 4 bytes per token and hidden or intermediate unit of a layer, and
// the logits as naive losses hold them.
function peakBytes({ nativeConfig }: ModelFolder, { sequences, tokens, promptTokens }: MicroBatchShape): number {
  const { hiddenSize, intermediateSize, numLayers, vocabSize } = nativeConfig;
  const weights = vocabSize * hiddenSize + numLayers * (4 * hiddenSize ** 2 + 3 * hiddenSize * intermediateSize);
  const activations = 64 * sequences * tokens * numLayers * (hiddenSize + intermediateSize);
  return 5e8 + 8 * weights + activations + 20 * sequences * (tokens - promptTokens) * vocabSize;
}
