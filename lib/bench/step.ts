// `bench step`: a whole training step beside TRL's GRPOTrainer and the roofline of this machine, measured in the same rounds.
import type { ModelFolder } from '../model/folder.js';
import { type Dtype, environment } from './environment.js';
import { floorMeasurement, type SamplingShape, samplingWork, stepFloor } from './roofline.js';
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

/** trl: under autocast. trl-bf16: weights and moments in bfloat16. recompute: ours with old log-probs by a forward pass. */
export const stepRivals = ['trl', 'trl-bf16', 'recompute'];

/** Of one forward and backward, for all contestants. */
export const tokensPerPass = 4096;

export type StepShape = Required<SamplingShape>;

/** rivals: names out of stepRivals. program: archer-bench-roofline. */
export interface StepBenchOptions extends BenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  shapes: StepShape[];
}

/** Rows as they are measured, setting by setting: first the roofline, then the rivals. */
export async function* benchStep(options: StepBenchOptions): AsyncGenerator<BenchRow[]> {
  for (const [shape, setting] of settingsOf(options.shapes, options)) {
    yield* runTrial(options, trialOf(options, shape, setting));
  }
}

function trialOf(options: StepBenchOptions, shape: StepShape, setting: Setting): Trial {
  const { model, modelName, program, python } = options;
  const { batch, n, promptTokens, newTokens } = shape;
  const { dtype, threads, memory } = setting;
  const { hiddenSize, intermediateSize } = model.nativeConfig;
  const { weightBytes } = samplingWork(model.nativeConfig, shape, bytesOf(dtype));
  const variables = environment(threads, memory);
  const common = argumentsOf({ dtype, threads });
  const task = [
    ...common,
    ...argumentsOf({ model: model.path, batch, n, 'prompt-tokens': promptTokens, 'new-tokens': newTokens }),
  ];
  const archer = [...variables, ...nodeProgram('serve-step.js'), ...task];
  const trl = (name: string) => argumentsOf({ serve: name, 'responses-per-pass': responsesPerPass(shape) });
  const sizes = argumentsOf({ bytes: weightBytes, hidden: hiddenSize, columns: 2 * intermediateSize });
  return {
    bench: 'step',
    shape: `${modelName} ${batch}x${n} ${promptTokens}+${newTokens}`,
    setting,
    rivals: options.rivals.filter((rival) => isThere(rival, options, dtype)),
    ourBytes: stepBytes(model, shape, 'archer'),
    rivalBytes: (rival) => stepBytes(model, shape, rival),
    archer,
    floor: { name: 'roofline', args: [...variables, program, ...common, ...sizes] },
    rivalArgs: (rival) =>
      rival === 'recompute'
        ? [...archer, '--recompute', 'true']
        : [...variables, ...pythonProgram(python, 'rivals_step.py'), ...trl(rival), ...task],
    floorOf: (measured) =>
      floorMeasurement(measured, (rates) => stepFloor(model.nativeConfig, shape, bytesOf(dtype), rates)),
  };
}

const bytesOf = (dtype: Dtype) => (dtype === 'bf16' ? 2 : 4);

function isThere(rival: string, { python }: StepBenchOptions, dtype: Dtype): boolean {
  if (rival === 'recompute') return true;
  return python !== undefined && (rival === 'trl' || dtype === 'bf16');
}

function stepBytes({ nativeConfig }: ModelFolder, shape: StepShape, name: string): number {
  const { hiddenSize, intermediateSize, numLayers } = nativeConfig;
  const libraries = 5e8;
  const parameters = samplingWork(nativeConfig, shape, 1).weightBytes;
  const { promptTokens, newTokens, batch, n } = shape;
  const tokens = Math.min(batch * n * (promptTokens + newTokens), tokensPerPass);
  const activations = tokens * numLayers * (hiddenSize + intermediateSize);
  return libraries + (name.startsWith('trl') ? 24 * parameters + 48 * activations : 26 * parameters + 16 * activations);
}

/** Responses of one pass: as many as tokensPerPass holds, in passes of equal size. */
export function responsesPerPass({ batch, n, promptTokens, newTokens }: StepShape): number {
  const most = Math.max(1, Math.floor(tokensPerPass / (promptTokens + newTokens)));
  let responses = Math.min(most, batch * n);
  while ((batch * n) % responses !== 0) responses -= 1;
  return responses;
}
