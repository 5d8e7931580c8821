// One setting of a benchmark: ours, its floor and the rivals in turn, in as many groups as the memory of the machine asks for, and
// the rows that come of it. What is measured (commands, shapes, floors) is said by loss.ts, rollout.ts, step.ts and update.ts.
import { freemem } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../package-root.js';
import { type Dtype, groupsWithin, type Memory } from './environment.js';
import { interleave, type Measurement } from './interleave.js';
import type { Python } from './programs.js';
import { type BenchRow, makeRow } from './statistics.js';

/** What all benchmarks are asked for. */
export interface BenchOptions {
  dtypes: Dtype[];
  threads: number[];
  memory: Memory[];
  /** Those that lack what they need are not run. */
  rivals: string[];
  python?: Python;
  pairs: number;
  /** Path of the native program that measures the floor. */
  program: string;
  /** Before the start. */
  load: number;
  busyCores: number;
  signal?: AbortSignal;
  onProgress?: (what: string) => void;
  /** A rival that failed and is left out. */
  onDropped?: (setting: string, name: string, reason: string) => void;
}

/** How all contestants compute. */
export interface Setting {
  dtype: Dtype;
  threads: number;
  memory: Memory;
}

/** Every shape in every setting. */
export function* settingsOf<Shape>(
  shapes: Shape[],
  { memory, dtypes, threads }: BenchOptions,
): Generator<[Shape, Setting]> {
  for (const one of memory) {
    for (const shape of shapes) {
      for (const dtype of dtypes) {
        for (const count of threads) yield [shape, { dtype, threads: count, memory: one }];
      }
    }
  }
}

export interface Trial {
  bench: string;
  /** As the rows call it. */
  shape: string;
  setting: Setting;
  /** Of one iteration, where a rate of tokens means something. */
  tokens?: number;
  rivals: string[];
  /** Rough peaks, so that contestants are not started together where the machine cannot hold them; ours with the floor's. */
  ourBytes: number;
  rivalBytes: (rival: string) => number;
  /** Arguments of `env`: variables, program, its arguments (environment.ts). */
  archer: string[];
  floor: { name: string; args: string[] };
  rivalArgs: (rival: string) => string[];
  /** From what the floor's program measured to what it bounds. Default: its own time. */
  floorOf?: (measured: Measurement) => Measurement;
}

/** Rows as they are measured: first the floor, then the rivals. */
export async function* runTrial(options: BenchOptions, trial: Trial): AsyncGenerator<BenchRow[]> {
  const { bench, shape, setting, tokens, floorOf = (measured) => measured } = trial;
  const { pairs, signal, load, busyCores } = options;
  const { dtype, threads, memory } = setting;
  const name = `${shape} ${dtype} ${threads === 1 ? '1 thread' : `${threads} threads`} ${memory} memory`;
  const groups = groupsWithin(trial.rivals, {
    always: trial.ourBytes,
    bytesOf: trial.rivalBytes,
    budget: 0.7 * freemem(),
  });
  for (const [i, group] of groups.entries()) {
    const { measurements, dropped, foreignCores } = await interleave(contestants(trial, group), {
      pairs,
      signal,
      onProgress: (what) => options.onProgress?.(`${name}: ${what}`),
    });
    for (const one of dropped) options.onDropped?.(name, one.name, one.reason);
    const [ours, measured, ...others] = measurements;
    const floor = floorOf(measured!);
    const context = { bench, device: 'cpu', shape, tokens, ...setting, load, busyCores, foreignCores };
    // A second group has its own measurement of the floor, which serves its own rivals alone.
    yield [...(i === 0 ? [floor] : []), ...others].map((rival) => makeRow(context, ours!, rival, floor));
  }
}

function contestants({ archer, floor, rivalArgs }: Trial, rivals: string[]) {
  const command = 'env';
  return [
    { name: 'archer', isRequired: true, command, args: archer },
    { ...floor, isRequired: true, command },
    ...rivals.map((name) => ({ name, command, args: rivalArgs(name) })),
  ];
}

/** { model: 'dir', batch: 4 } as --model dir --batch 4. */
export function argumentsOf(values: Record<string, string | number>): string[] {
  return Object.entries(values).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

/** A program of dist/bench in this Node. */
export const nodeProgram = (file: string) => [process.execPath, join(packageRoot, 'dist/bench', file)];

/** A program of bench/ in the rivals' Python. */
export const pythonProgram = (python: Python | undefined, file: string) => [
  python!.command,
  join(packageRoot, 'bench', file),
];
