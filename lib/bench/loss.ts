// `bench loss`: the fused loss with its gradients beside the bare three GEMMs and the rivals of bench/rivals_loss.py.
import { ArcherError } from '../errors.js';
import { type Dtype, environment } from './environment.js';
import type { BenchRow } from './statistics.js';
import {
  argumentsOf,
  type BenchOptions,
  pythonProgram,
  runTrial,
  type Setting,
  settingsOf,
  type Trial,
} from './trial.js';

export interface LossShape {
  name: string;
  tokens: number;
  hidden: number;
  vocabulary: number;
}

export const namedShapes: Record<string, LossShape> = Object.fromEntries(
  [
    { name: 'smollm2-512', tokens: 512, hidden: 576, vocabulary: 49_152 },
    { name: 'smollm2-2048', tokens: 2048, hidden: 576, vocabulary: 49_152 },
    { name: 'qwen-256', tokens: 256, hidden: 1536, vocabulary: 151_936 },
  ].map((shape) => [shape.name, shape]),
);

/** smollm2-512, smollm2-2048, qwen-256, or tokens x hidden x vocabulary as in 8x16x50. @throws ArcherError ARCHER_E_CONFIG */
export function shapeFromName(name: string): LossShape {
  const known = namedShapes[name];
  if (known) return known;
  const [tokens = 0, hidden = 0, vocabulary = 0] =
    /^([1-9]\d{0,8})x([1-9]\d{0,8})x([1-9]\d{0,8})$/.exec(name)?.slice(1).map(Number) ?? [];
  if (tokens > 0 && vocabulary > 1) return { name, tokens, hidden, vocabulary };
  throw new ArcherError(
    'ARCHER_E_CONFIG',
    `--shapes ${name} is not known; use ${Object.keys(namedShapes).join(', ')}, or tokens x hidden x vocabulary as in 8x16x50.`,
  );
}

// Beside libraries and weights.
const rivalBytes: Record<string, (shape: LossShape) => number> = {
  naive: ({ tokens, vocabulary }) => 20 * tokens * vocabulary,
  trl: ({ tokens, vocabulary }) => 20 * tokens * vocabulary,
  verl: ({ tokens, vocabulary }) => 24 * Math.min(tokens, 512) * vocabulary,
  liger: ({ hidden, vocabulary }) => 8 * hidden * vocabulary,
  checkpointed: ({ tokens, vocabulary }) => 24 * Math.min(tokens, 256) * vocabulary,
};

export const rivalNames = Object.keys(rivalBytes);

/** rivals: names out of rivalNames. program: archer-bench-loss. */
export interface LossBenchOptions extends BenchOptions {
  shapes: LossShape[];
  /** Tokens per response. */
  responseTokens: number;
}

/** Rows as they are measured, setting by setting: first the GEMMs, then the rivals. */
export async function* benchLoss(options: LossBenchOptions): AsyncGenerator<BenchRow[]> {
  for (const [shape, setting] of settingsOf(options.shapes, options)) {
    yield* runTrial(options, trialOf(options, shape, setting));
  }
}

function trialOf(options: LossBenchOptions, shape: LossShape, setting: Setting): Trial {
  const { program, python, responseTokens } = options;
  const { name, tokens, hidden, vocabulary } = shape;
  const { dtype, threads, memory } = setting;
  const common = argumentsOf({
    shape: `${tokens}x${hidden}x${vocabulary}`,
    dtype,
    threads,
    'response-tokens': responseTokens,
  });
  // archer-bench-loss sets its allocator by itself.
  const native = (serve: string) => [
    ...environment(threads, 'default'),
    program,
    ...argumentsOf({ serve }),
    ...common,
    ...argumentsOf({ memory }),
  ];
  return {
    bench: 'loss',
    shape: name,
    setting,
    rivals: python ? options.rivals : [],
    ...lossBytes(shape, dtype),
    archer: native('archer'),
    floor: { name: 'gemm-floor', args: native('gemm-floor') },
    rivalArgs: (rival) => [
      ...environment(threads, memory),
      ...pythonProgram(python, 'rivals_loss.py'),
      ...argumentsOf({ serve: rival }),
      ...common,
    ],
  };
}

/** Rough peaks of a setting's contestants. */
export function lossBytes(shape: LossShape, dtype: Dtype): Pick<Trial, 'ourBytes' | 'rivalBytes'> {
  const elementBytes = dtype === 'bf16' ? 2 : 4;
  const weights = shape.hidden * shape.vocabulary;
  const libraries = 4e8;
  const floor = 10 * shape.tokens * shape.vocabulary + 10 * weights;
  return {
    ourBytes: 2 * libraries + floor + weights * (elementBytes + 4) + 2e8,
    rivalBytes: (rival) => libraries + 2 * weights * elementBytes + rivalBytes[rival]!(shape),
  };
}
