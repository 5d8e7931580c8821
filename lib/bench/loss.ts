// `bench loss`: the fused loss with its gradients beside the bare three GEMMs and the rivals of bench/rivals_loss.py.
import { freemem } from 'node:os';
import { join } from 'node:path';
import { ArcherError } from '../errors.js';
import { packageRoot } from '../package-root.js';
import type { ContestantSpec } from './contestant.js';
import { type Dtype, environment, groupsWithin, type Memory } from './environment.js';
import { interleave } from './interleave.js';
import type { Python } from './programs.js';
import { type BenchRow, makeRow } from './statistics.js';

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

interface Size extends LossShape {
  elementBytes: number;
}

// Rough peaks in bytes, so that contestants are not started together where the machine cannot hold them.
const rivalBytes: Record<string, (size: Size) => number> = {
  naive: ({ tokens, vocabulary }) => 20 * tokens * vocabulary,
  trl: ({ tokens, vocabulary }) => 20 * tokens * vocabulary,
  verl: ({ tokens, vocabulary }) => 24 * Math.min(tokens, 512) * vocabulary,
  liger: ({ hidden, vocabulary }) => 8 * hidden * vocabulary,
  checkpointed: ({ tokens, vocabulary }) => 24 * Math.min(tokens, 256) * vocabulary,
};

export const rivalNames = Object.keys(rivalBytes);

/** Groups of rivals that fit into `budget` bytes together with ours and the GEMMs, in the order given; never an empty one. */
export function groupByMemory(rivals: string[], shape: LossShape, dtype: Dtype, budget: number): string[][] {
  const size = { ...shape, elementBytes: dtype === 'bf16' ? 2 : 4 };
  const weights = shape.hidden * shape.vocabulary;
  const libraries = 4e8;
  const floor = 10 * shape.tokens * shape.vocabulary + 10 * weights;
  const base = 2 * libraries + floor + weights * (size.elementBytes + 4) + 2e8;
  const bytesOf = (rival: string) => libraries + 2 * weights * size.elementBytes + rivalBytes[rival]!(size);
  return groupsWithin(rivals, { always: base, bytesOf, budget });
}

export interface LossBenchOptions {
  shapes: LossShape[];
  dtypes: Dtype[];
  threads: number[];
  memory: Memory[];
  /** Names out of rivalNames. Without a Python they are not run. */
  rivals: string[];
  pairs: number;
  /** Tokens per response. */
  responseTokens: number;
  /** Path of archer-bench-loss. */
  program: string;
  python?: Python;
  /** Before the start. */
  load: number;
  busyCores: number;
  signal?: AbortSignal;
  onProgress?: (what: string) => void;
  /** A rival that failed and is left out. */
  onDropped?: (setting: string, name: string, reason: string) => void;
}

/** Rows as they are measured, setting by setting: first the GEMMs, then the rivals. */
export async function* benchLoss(options: LossBenchOptions): AsyncGenerator<BenchRow[]> {
  const rivals = options.python ? options.rivals : [];
  for (const memory of options.memory) {
    for (const shape of options.shapes) {
      for (const dtype of options.dtypes) {
        for (const threads of options.threads) {
          const setting = `${shape.name} ${dtype} ${threads === 1 ? '1 thread' : `${threads} threads`} ${memory} memory`;
          for (const [i, group] of groupByMemory(rivals, shape, dtype, 0.7 * freemem()).entries()) {
            const { measurements, dropped, foreignCores } = await interleave(
              contestants(options, group, { shape, dtype, threads, memory }),
              {
                pairs: options.pairs,
                signal: options.signal,
                onProgress: (what) => options.onProgress?.(`${setting}: ${what}`),
              },
            );
            for (const { name, reason } of dropped) options.onDropped?.(setting, name, reason);
            const [ours, floor, ...others] = measurements;
            const { load, busyCores } = options;
            const context = {
              bench: 'loss',
              device: 'cpu',
              shape: shape.name,
              dtype,
              threads,
              memory,
              load,
              busyCores,
              foreignCores,
            };
            // A second group has its own measurement of the GEMMs, which serves its own rivals alone.
            yield [...(i === 0 ? [floor!] : []), ...others].map((rival) => makeRow(context, ours!, rival, floor));
          }
        }
      }
    }
  }
}

interface Setting {
  shape: LossShape;
  dtype: Dtype;
  threads: number;
  memory: Memory;
}

function contestants(
  { program, python, responseTokens }: LossBenchOptions,
  rivals: string[],
  setting: Setting,
): ContestantSpec[] {
  const { shape, dtype, threads, memory } = setting;
  const size = `${shape.tokens}x${shape.hidden}x${shape.vocabulary}`;
  const common = [
    '--shape',
    size,
    '--dtype',
    dtype,
    '--threads',
    String(threads),
    '--response-tokens',
    String(responseTokens),
  ];
  // archer-bench-loss sets its allocator by itself.
  const native = (name: string): ContestantSpec => ({
    name,
    isRequired: true,
    command: 'env',
    args: [...environment(threads, 'default'), program, '--serve', name, ...common, '--memory', memory],
  });
  const script = join(packageRoot, 'bench/rivals_loss.py');
  return [
    native('archer'),
    native('gemm-floor'),
    ...rivals.map((name) => ({
      name,
      command: 'env',
      args: [...environment(threads, memory), python!.command, script, '--serve', name, ...common],
    })),
  ];
}
