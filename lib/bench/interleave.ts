// Contestants in turn: A B C A B C …, so that whatever the machine does meets all of them alike. One computes at a time.
import { setTimeout as sleep } from 'node:timers/promises';
import { isArcherError, messageOf } from '../errors.js';
import { Contestant, type ContestantSpec, type Sample } from './contestant.js';
import { processCpuSeconds, systemCpuSeconds } from './machine.js';

export interface InterleaveOptions {
  /** Timed rounds. */
  pairs: number;
  /** Rounds before them that are not timed. Default 2: heaps that keep freed memory grow in the first ones. */
  warmup?: number;
  signal?: AbortSignal;
  onProgress?: (what: string) => void;
}

export interface Measurement {
  name: string;
  /** One per round, in the order of the rounds. */
  samples: Sample[];
  /** Largest of all rounds, warm-up included: kept memory shows only once. */
  peakBytes?: number;
  details: Record<string, unknown>;
}

export interface Interleaved {
  measurements: Measurement[];
  /** Contestants that failed and are left out, with the reason. */
  dropped: { name: string; reason: string }[];
  /** Processors that others kept busy while the contestants ran, on average. */
  foreignCores: number;
}

// OpenMP's threads spin for a few milliseconds after their work.
const pauseMs = 20;

/** @throws ArcherError of a required contestant that fails, and ARCHER_E_ABORTED */
export async function interleave(specs: ContestantSpec[], options: InterleaveOptions): Promise<Interleaved> {
  const { pairs, warmup = 2, signal, onProgress = () => {} } = options;
  const dropped: Interleaved['dropped'] = [];
  const entries: { contestant: Contestant; spec: ContestantSpec; measurement: Measurement }[] = [];
  const open: Contestant[] = [];

  const drop = (spec: ContestantSpec, error: unknown) => {
    if (spec.isRequired || signal?.aborted || !isArcherError(error)) throw error;
    dropped.push({ name: spec.name, reason: messageOf(error) });
  };

  try {
    for (const spec of specs) {
      onProgress(`${spec.name} makes its data`);
      try {
        const contestant = await Contestant.start(spec, signal);
        open.push(contestant);
        entries.push({ contestant, spec, measurement: { name: spec.name, samples: [], details: contestant.details } });
      } catch (error) {
        drop(spec, error);
      }
    }
    const began = performance.now();
    const systemBefore = systemCpuSeconds();
    const ownBefore = ownCpuSeconds(open);
    for (let round = -warmup; round < pairs; round++) {
      for (const entry of [...entries]) {
        onProgress(`${round < 0 ? 'warm-up' : `pair ${round + 1} of ${pairs}`}, ${entry.spec.name}`);
        try {
          const sample = await entry.contestant.run();
          if (sample.peakBytes !== undefined) {
            entry.measurement.peakBytes = Math.max(entry.measurement.peakBytes ?? 0, sample.peakBytes);
          }
          if (round >= 0) entry.measurement.samples.push(sample);
        } catch (error) {
          entries.splice(entries.indexOf(entry), 1);
          drop(entry.spec, error);
        }
        await sleep(pauseMs);
      }
    }
    const seconds = (performance.now() - began) / 1000;
    const foreign = systemCpuSeconds() - systemBefore - (ownCpuSeconds(open) - ownBefore);
    return {
      measurements: entries.map(({ measurement }) => measurement),
      dropped,
      foreignCores: Math.max(0, foreign / seconds),
    };
  } finally {
    await Promise.all(open.map((contestant) => contestant.close()));
  }
}

function ownCpuSeconds(contestants: Contestant[]): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6 + contestants.reduce((sum, { pid }) => sum + processCpuSeconds(pid), 0);
}
