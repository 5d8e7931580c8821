// Where a step's numbers go. A record has two parts: `metrics`, which the computation alone determines (the same run
// gives the same values, bit for bit), and `timings`: times, memory, throughput, which no two runs share.
import type { ProgressUpdate } from './progress.js';

export interface StepRecord {
  /** Completed training steps; 0 is what is known before the first. */
  step: number;
  /** By verl's names (docs/metrics.md). A value that is not finite on this step is written as null. */
  metrics: Record<string, number>;
  timings: Record<string, number>;
}

export interface RunInfo {
  runDir: string;
  /** What runs, for people: "archer on gsm8k". */
  title: string;
  totalSteps: number;
  /** Steps that were done before this process: 0, or the checkpoint's. */
  startStep: number;
  /** More lines for the console's start report: "model: …", "64 prompts x 16 responses". */
  details?: string[];
}

export interface RunEnd {
  status: 'finished' | 'interrupted' | 'failed';
  /** Lines for the console's last report. */
  details?: string[];
}

/** One destination. What it cannot write it throws (ARCHER_E_IO): a run without a log is not carried on silently. */
export interface MetricsSink {
  start(info: RunInfo): void | Promise<void>;
  step(record: StepRecord): void | Promise<void>;
  /** What happens within a step; for people only. */
  progress?(update: ProgressUpdate): void;
  /** A line for people, written so that it does not tear the progress line. */
  note?(line: string): void;
  /** Forces everything to the disk; called before a checkpoint records offsets. */
  flush?(): void | Promise<void>;
  close(end: RunEnd): void | Promise<void>;
}

/**
 * One sink in front of several. Each gets every record even where an earlier one failed; the first failure is thrown
 * after that.
 */
export function combineSinks(sinks: readonly MetricsSink[]): Required<MetricsSink> {
  async function all(call: (sink: MetricsSink) => void | Promise<void>): Promise<void> {
    const failures: unknown[] = [];
    for (const sink of sinks) {
      try {
        await call(sink);
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
  return {
    start: (info) => all((sink) => sink.start(info)),
    step: (record) => all((sink) => sink.step(record)),
    progress: (update) => {
      for (const sink of sinks) sink.progress?.(update);
    },
    note: (line) => {
      for (const sink of sinks) sink.note?.(line);
    },
    flush: () => all((sink) => sink.flush?.()),
    close: (end) => all((sink) => sink.close(end)),
  };
}
