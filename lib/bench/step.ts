// `bench step`: a whole training step beside TRL's GRPOTrainer and the roofline of this machine, measured in the same rounds.
import { freemem } from 'node:os';
import { join } from 'node:path';
import type { ModelFolder } from '../model/folder.js';
import { packageRoot } from '../package-root.js';
import type { ContestantSpec } from './contestant.js';
import { type Dtype, environment, groupsWithin, type Memory } from './environment.js';
import { interleave } from './interleave.js';
import type { Python } from './programs.js';
import { floorMeasurement, type SamplingShape, samplingWork, stepFloor } from './roofline.js';
import { type BenchRow, makeRow } from './statistics.js';

/** trl: under autocast. trl-bf16: weights and moments in bfloat16. recompute: ours with old log-probs by a forward pass. */
export const stepRivals = ['trl', 'trl-bf16', 'recompute'];

/** Of one forward and backward, for all contestants. */
export const tokensPerPass = 4096;

export type StepShape = Required<SamplingShape>;

export interface StepBenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  shapes: StepShape[];
  dtypes: Dtype[];
  threads: number[];
  memory: Memory[];
  /** Names out of stepRivals; without a Python those that need one are not run. */
  rivals: string[];
  python?: Python;
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

interface Setting extends StepShape {
  dtype: Dtype;
  threads: number;
  memory: Memory;
}

/** Rows as they are measured, setting by setting: first the roofline, then the rivals. */
export async function* benchStep(options: StepBenchOptions): AsyncGenerator<BenchRow[]> {
  const { model, load, busyCores } = options;
  for (const setting of settingsOf(options)) {
    const { batch, n, promptTokens, newTokens, dtype, threads, memory } = setting;
    const shape = `${options.modelName} ${batch}x${n} ${promptTokens}+${newTokens}`;
    const name = `${shape} ${dtype} ${threads === 1 ? '1 thread' : `${threads} threads`} ${memory} memory`;
    const rivals = options.rivals.filter((rival) => isThere(rival, options, dtype));
    const groups = groupsWithin(rivals, {
      always: stepBytes(model, setting, 'archer'),
      bytesOf: (rival) => stepBytes(model, setting, rival),
      budget: 0.8 * freemem(),
    });
    for (const [i, group] of groups.entries()) {
      const { measurements, dropped, foreignCores } = await interleave(contestants(options, group, setting), {
        pairs: options.pairs,
        signal: options.signal,
        onProgress: (what) => options.onProgress?.(`${name}: ${what}`),
      });
      for (const one of dropped) options.onDropped?.(name, one.name, one.reason);
      const [ours, measured, ...others] = measurements;
      const floor = floorMeasurement(measured!, (rates) =>
        stepFloor(model.nativeConfig, setting, bytesOf(dtype), rates),
      );
      const context = { bench: 'step', device: 'cpu', shape, dtype, threads, memory, load, busyCores, foreignCores };
      // A second group has its own measurement of the machine, which serves its own rivals alone.
      yield [...(i === 0 ? [floor] : []), ...others].map((rival) => makeRow(context, ours!, rival, floor));
    }
  }
}

function settingsOf({ shapes, dtypes, threads, memory }: StepBenchOptions): Setting[] {
  return memory.flatMap((one) =>
    shapes.flatMap((shape) =>
      dtypes.flatMap((dtype) => threads.map((count) => ({ ...shape, dtype, threads: count, memory: one }))),
    ),
  );
}

const bytesOf = (dtype: Dtype) => (dtype === 'bf16' ? 2 : 4);

function isThere(rival: string, { python }: StepBenchOptions, dtype: Dtype): boolean {
  if (rival === 'recompute') return true;
  return python !== undefined && (rival === 'trl' || dtype === 'bf16');
}

/** Rough peak, so that contestants are not started together where the machine cannot hold them. */
function stepBytes({ nativeConfig }: ModelFolder, setting: Setting, name: string): number {
  const { hiddenSize, intermediateSize, numLayers } = nativeConfig;
  const libraries = 5e8;
  const parameters = samplingWork(nativeConfig, setting, 1).weightBytes;
  const { promptTokens, newTokens, batch, n } = setting;
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

function contestants(options: StepBenchOptions, rivals: string[], setting: Setting): ContestantSpec[] {
  const { model, program, python } = options;
  const { dtype, threads, memory, batch, n, promptTokens, newTokens } = setting;
  const argumentsOf = (values: Record<string, string | number>) =>
    Object.entries(values).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const common = argumentsOf({ dtype, threads });
  const task = [
    ...common,
    ...argumentsOf({ model: model.path, batch, n, 'prompt-tokens': promptTokens, 'new-tokens': newTokens }),
  ];
  const start = (name: string, command: string[], isRequired = false): ContestantSpec => ({
    name,
    isRequired,
    command: 'env',
    args: [...environment(threads, memory), ...command],
  });
  const ours = [process.execPath, join(packageRoot, 'dist/bench/serve-step.js'), ...task];
  const script = join(packageRoot, 'bench/rivals_step.py');
  const trl = (name: string) => [
    python!.command,
    script,
    ...argumentsOf({ serve: name, 'responses-per-pass': responsesPerPass(setting) }),
    ...task,
  ];
  const { hiddenSize, intermediateSize } = model.nativeConfig;
  const { weightBytes } = samplingWork(model.nativeConfig, setting, bytesOf(dtype));
  const sizes = argumentsOf({ bytes: weightBytes, hidden: hiddenSize, columns: 2 * intermediateSize });
  return [
    start('archer', ours, true),
    start('roofline', [program, ...common, ...sizes], true),
    ...rivals.map((name) => start(name, name === 'recompute' ? [...ours, '--recompute', 'true'] : trl(name))),
  ];
}
