// metrics.jsonl and timings.jsonl: one line per step, "step" first, then the names in the order of their code units.
// metrics.jsonl holds only what the computation determines and can be compared byte for byte between runs; everything
// that a clock or the machine has a part in stands in timings.jsonl.
import { join } from 'node:path';
import { AppendFile } from './append-file.js';
import type { MetricsSink, StepRecord } from './sink.js';

export const metricsName = 'metrics.jsonl';
export const timingsName = 'timings.jsonl';

/**
 * One line. NaN and the infinities become null: the metric has no finite value on this step, and the key stays so
 * that every line has the same columns.
 */
export function jsonLine(step: number, values: Record<string, number>): string {
  const line: Record<string, number | null> = { step };
  for (const name of Object.keys(values).sort()) {
    const value = values[name] as number;
    line[name] = Number.isFinite(value) ? value : null;
  }
  return `${JSON.stringify(line)}\n`;
}

/**
 * Every line is handed to the system at once (a killed process loses none) and forced to the disk by `flush`, which
 * belongs before a checkpoint that records {@link JsonlSink.bytes}, and by `close`.
 */
export class JsonlSink implements MetricsSink {
  readonly #runDir: string;
  #metrics: AppendFile | undefined;
  #timings: AppendFile | undefined;

  constructor(options: { runDir: string }) {
    this.#runDir = options.runDir;
  }

  start(): void {
    this.#metrics = new AppendFile(join(this.#runDir, metricsName));
    this.#timings = new AppendFile(join(this.#runDir, timingsName));
  }

  step(record: StepRecord): void {
    this.#metrics?.append(Buffer.from(jsonLine(record.step, record.metrics)));
    this.#timings?.append(Buffer.from(jsonLine(record.step, record.timings)));
  }

  /** Lengths in bytes: what a checkpoint records and a resume cuts back to. */
  bytes(): { metrics: number; timings: number } {
    return { metrics: this.#metrics?.bytes ?? 0, timings: this.#timings?.bytes ?? 0 };
  }

  flush(): void {
    this.#metrics?.flush();
    this.#timings?.flush();
  }

  close(): void {
    this.#metrics?.close();
    this.#timings?.close();
  }
}
