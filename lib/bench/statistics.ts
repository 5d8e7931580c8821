// From samples to rows of a result, and whether a row may be quoted. Pure functions.
import type { Sample } from './contestant.js';
import type { Measurement } from './interleave.js';

/** One row of every benchmark's JSON. ratio = the rival's time over ours; memory_ratio = its extra peak memory over ours. */
export interface BenchRow {
  bench: string;
  device: string;
  shape: string;
  dtype: string;
  threads: number;
  against: string;
  /** The allocator's setting for all contestants: freed memory stays in the process, or glibc as it is. */
  memory: 'kept' | 'default';
  /** Median over the pairs, of the rival's seconds over ours in the same round. */
  ratio: number;
  ratio_min: number;
  ratio_max: number;
  /** The same median of CPU times: a lead where the machine is busy, no claim. */
  cpu_ratio: number;
  memory_ratio: number | null;
  pairs: number;
  quotable: boolean;
  /** Why not. */
  reasons: string[];
  /** Medians. */
  seconds: number;
  cpu_seconds: number;
  rival_seconds: number;
  rival_cpu_seconds: number;
  peak_bytes: number | null;
  rival_peak_bytes: number | null;
  /** The rival's time over the floor's (bare products, roofline) in the same round: how much faster anything exact could be. */
  rival_over_floor: number | null;
  /** Of all sequences together, from the medians; in benchmarks of a model. */
  tokens_per_second?: number;
  rival_tokens_per_second?: number;
  /** Medians by phase, where both sides have it. */
  phases?: Record<string, PhaseCost>;
  details: Record<string, unknown>;
}

export interface PhaseCost {
  seconds: number;
  rival_seconds: number;
  ratio: number;
  peak_bytes: number | null;
  rival_peak_bytes: number | null;
}

export function median(values: number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/** b's seconds over a's, round by round. */
export function ratiosOf(a: Sample[], b: Sample[]): number[] {
  return a.slice(0, b.length).map(({ seconds }, i) => b[i]!.seconds / seconds);
}

export interface Circumstances {
  /** Load average of the last minute before the start. */
  load: number;
  /** Processors that were busy before the start. */
  busyCores: number;
  /** Processors that others kept busy meanwhile. */
  foreignCores: number;
  threads: number;
}

export const quotable = {
  /** Fewest pairs. */
  pairs: 7,
  /** Highest load average before the start. */
  load: 0.5,
  /** Most processors that others may keep busy, before and meanwhile. */
  cores: 0.15,
  /** Widest (max − min) / median of the pairs' ratios. */
  spread: 0.15,
  /** Least CPU time over wall time of a single thread: below it the thread has waited for a processor. */
  cpuShare: 0.95,
};

/** Why a result must not be quoted; empty where it may. */
export function reasonsNotToQuote(
  ours: Sample[],
  rival: Sample[],
  { load, busyCores, foreignCores, threads }: Circumstances,
): string[] {
  const reasons: string[] = [];
  const ratios = ratiosOf(ours, rival);
  if (ratios.length < quotable.pairs) reasons.push(`only ${ratios.length} pairs of ${quotable.pairs}`);
  if (load > quotable.load) reasons.push(`load average ${load.toFixed(2)} before the start`);
  if (busyCores > quotable.cores) reasons.push(`${busyCores.toFixed(2)} processors busy before the start`);
  if (foreignCores > quotable.cores) reasons.push(`others used ${foreignCores.toFixed(2)} processors meanwhile`);
  const spread = (Math.max(...ratios) - Math.min(...ratios)) / median(ratios);
  if (spread > quotable.spread) reasons.push(`the pairs' ratios spread by ${(100 * spread).toFixed(0)} %`);
  const share = Math.min(
    ...[ours, rival].map((samples) => median(samples.map(({ seconds, cpuSeconds }) => cpuSeconds / seconds))),
  );
  if (threads === 1 && share < quotable.cpuShare)
    reasons.push(`a thread got ${(100 * share).toFixed(0)} % of a processor`);
  return reasons;
}

export interface RowContext extends Circumstances {
  bench: string;
  device: string;
  shape: string;
  dtype: string;
  memory: 'kept' | 'default';
  /** Of one iteration: generated ones, or those of a micro-batch. */
  tokens?: number;
}

/** One row: `rival` against `ours`; `floor`, where given, is what rival_over_floor divides by. */
export function makeRow(context: RowContext, ours: Measurement, rival: Measurement, floor?: Measurement): BenchRow {
  const { bench, device, shape, dtype, threads, memory, tokens } = context;
  const ratios = ratiosOf(ours.samples, rival.samples);
  const reasons = reasonsNotToQuote(ours.samples, rival.samples, context);
  const seconds = ({ samples }: Measurement) => median(samples.map((sample) => sample.seconds));
  const cpuSeconds = ({ samples }: Measurement) => median(samples.map((sample) => sample.cpuSeconds));
  const hasMemory = ours.peakBytes !== undefined && ours.peakBytes > 0 && rival.peakBytes !== undefined;
  return {
    bench,
    device,
    shape,
    dtype,
    threads,
    against: rival.name,
    memory,
    ratio: round(median(ratios)),
    ratio_min: round(Math.min(...ratios)),
    ratio_max: round(Math.max(...ratios)),
    cpu_ratio: round(median(ours.samples.map((sample, i) => rival.samples[i]!.cpuSeconds / sample.cpuSeconds))),
    memory_ratio: hasMemory ? round(rival.peakBytes! / ours.peakBytes!) : null,
    pairs: ratios.length,
    quotable: reasons.length === 0,
    reasons,
    seconds: seconds(ours),
    cpu_seconds: cpuSeconds(ours),
    rival_seconds: seconds(rival),
    rival_cpu_seconds: cpuSeconds(rival),
    peak_bytes: ours.peakBytes ?? null,
    rival_peak_bytes: rival.peakBytes ?? null,
    rival_over_floor: floor && floor !== rival ? round(median(ratiosOf(floor.samples, rival.samples))) : null,
    ...(tokens === undefined
      ? {}
      : { tokens_per_second: round(tokens / seconds(ours)), rival_tokens_per_second: round(tokens / seconds(rival)) }),
    ...phasesOf(ours.samples, rival.samples),
    details: rival.details,
  };
}

/** What a contestant answers beside the whole: <phase>_seconds and <phase>_peak_bytes. */
function phasesOf(ours: Sample[], rival: Sample[]): Pick<BenchRow, 'phases'> {
  const [first, theirs] = [ours, rival].map((samples) => samples[0]?.values ?? {});
  const names = Object.keys(first!).filter((name) => name.endsWith('_seconds') && name in theirs!);
  if (names.length === 0) return {};
  const of = (samples: Sample[], name: string) => samples.map(({ values = {} }) => values[name] ?? Number.NaN);
  const peak = (samples: Sample[], name: string) => {
    const bytes = Math.max(...of(samples, name));
    return Number.isNaN(bytes) ? null : bytes;
  };
  const phases = names.map((name) => {
    const phase = name.slice(0, -'_seconds'.length);
    const theirSeconds = of(rival, name);
    const cost: PhaseCost = {
      seconds: median(of(ours, name)),
      rival_seconds: median(theirSeconds),
      ratio: round(median(of(ours, name).map((seconds, i) => theirSeconds[i]! / seconds))),
      peak_bytes: peak(ours, `${phase}_peak_bytes`),
      rival_peak_bytes: peak(rival, `${phase}_peak_bytes`),
    };
    return [phase, cost];
  });
  return { phases: Object.fromEntries(phases) };
}

const round = (value: number) => Number(value.toPrecision(4));
