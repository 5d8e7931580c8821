// `bench update`: forward, Archer loss and backward of a packed micro-batch, beside Hugging Face with autograd and the rate of the
// bare matrix products, measured in the same rounds.
import { freemem } from 'node:os';
import { join } from 'node:path';
import { ArcherError } from '../errors.js';
import type { ModelFolder } from '../model/folder.js';
import { packageRoot } from '../package-root.js';
import type { ContestantSpec } from './contestant.js';
import { type Dtype, environment, groupsWithin, type Memory } from './environment.js';
import { interleave } from './interleave.js';
import { layerName, type MicroBatchShape, rateMeasurement, trainingWork } from './products.js';
import type { Python } from './programs.js';
import { type BenchRow, makeRow } from './statistics.js';

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

export interface UpdateBenchOptions {
  model: ModelFolder;
  /** As the rows call it. */
  modelName: string;
  shapes: MicroBatchShape[];
  dtypes: Dtype[];
  threads: number[];
  memory: Memory[];
  /** Names out of updateRivals. Without a Python they are not run. */
  rivals: string[];
  python?: Python;
  pairs: number;
  /** Path of archer-bench-products. */
  program: string;
  /** Before the start. */
  load: number;
  busyCores: number;
  signal?: AbortSignal;
  onProgress?: (what: string) => void;
  /** A rival that failed and is left out. */
  onDropped?: (setting: string, name: string, reason: string) => void;
}

interface Setting {
  shape: MicroBatchShape;
  dtype: Dtype;
  threads: number;
  memory: Memory;
}

/** Rows as they are measured, setting by setting: first the rate of the products, then the rivals. */
export async function* benchUpdate(options: UpdateBenchOptions): AsyncGenerator<BenchRow[]> {
  for (const setting of settingsOf(options)) {
    const { shape, dtype, threads, memory } = setting;
    const shapeName = `${options.modelName} ${shape.sequences}x${shape.tokens}`;
    const name = `${shapeName} ${dtype} ${threads === 1 ? '1 thread' : `${threads} threads`} ${memory} memory`;
    const rivals = options.python ? options.rivals.filter((rival) => rival !== 'hf-bf16' || dtype === 'bf16') : [];
    const groups = groupsWithin(rivals, {
      always: 1e9 + peakBytes(options.model, shape) / 2,
      bytesOf: () => peakBytes(options.model, shape),
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
      const rate = rateMeasurement(measured!, trainingWork(options.model.nativeConfig, shape));
      const { load, busyCores } = options;
      const circumstances = { load, busyCores, foreignCores, threads };
      const tokens = shape.sequences * shape.tokens;
      const context = { bench: 'update', device: 'cpu', shape: shapeName, dtype, memory, tokens, ...circumstances };
      // A second group has its own measurement of the products, which serves its own rivals alone.
      yield [...(i === 0 ? [rate] : []), ...others].map((rival) => makeRow(context, ours!, rival, rate));
    }
  }
}

function settingsOf({ shapes, dtypes, threads, memory }: UpdateBenchOptions): Setting[] {
  return memory.flatMap((one) =>
    shapes.flatMap((shape) =>
      dtypes.flatMap((dtype) => threads.map((count) => ({ shape, dtype, threads: count, memory: one }))),
    ),
  );
}

// Roughly, of autograd: weights and gradients, some 16 numbers of 4 bytes per token and hidden or intermediate unit of a layer, and
// the logits as naive losses hold them.
function peakBytes({ nativeConfig }: ModelFolder, { sequences, tokens, promptTokens }: MicroBatchShape): number {
  const { hiddenSize, intermediateSize, numLayers, vocabSize } = nativeConfig;
  const weights = vocabSize * hiddenSize + numLayers * (4 * hiddenSize ** 2 + 3 * hiddenSize * intermediateSize);
  const activations = 64 * sequences * tokens * numLayers * (hiddenSize + intermediateSize);
  return 5e8 + 8 * weights + activations + 20 * sequences * (tokens - promptTokens) * vocabSize;
}

function contestants(options: UpdateBenchOptions, rivals: string[], setting: Setting): ContestantSpec[] {
  const { model, program, python } = options;
  const { shape, dtype, threads, memory } = setting;
  const common = ['--dtype', dtype, '--threads', String(threads)];
  const task = [
    '--model',
    model.path,
    ...common,
    '--sequences',
    String(shape.sequences),
    '--tokens',
    String(shape.tokens),
    '--prompt-tokens',
    String(shape.promptTokens),
  ];
  const start = (name: string, command: string[], isRequired = false): ContestantSpec => ({
    name,
    isRequired,
    command: 'env',
    args: [...environment(threads, memory), ...command],
  });
  const products = trainingWork(model.nativeConfig, shape).layers.map(layerName).join(',');
  const script = join(packageRoot, 'bench/rivals_update.py');
  return [
    start('archer', [process.execPath, join(packageRoot, 'dist/bench/serve-update.js'), ...task], true),
    start('gemm-rate', [program, ...common, '--products', products], true),
    ...rivals.map((name) => start(name, [python!.command, script, '--serve', name, ...task])),
  ];
}
