// The TensorBoard sink: <run folder>/tensorboard/events.out.tfevents.…, a new file per process. Files are read in the
// order of their names, which begin with the time.
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { AppendFile } from './append-file.js';
import type { MetricsSink, RunInfo, StepRecord } from './sink.js';
import { restartEvent, scalarsEvent, tfRecord, versionEvent } from './tensorboard-format.js';

export const tensorboardFolder = 'tensorboard';

export class TensorboardSink implements MetricsSink {
  readonly #runDir: string;
  readonly #nowMs: () => number;
  #file: AppendFile | undefined;

  constructor(options: { runDir: string; nowMs?: () => number }) {
    this.#runDir = options.runDir;
    this.#nowMs = options.nowMs ?? Date.now;
  }

  #freeName(): string {
    const seconds = Math.floor(this.#nowMs() / 1000);
    for (let number = 0; ; ++number) {
      // Padded, so that the order of the names stays that of the numbers.
      const stamp = `${String(seconds).padStart(10, '0')}.${String(number).padStart(3, '0')}`;
      const name = `events.out.tfevents.${stamp}.${hostname()}.${process.pid}`;
      const path = join(this.#runDir, tensorboardFolder, name);
      if (!existsSync(path)) return path;
    }
  }

  #append(event: Buffer): void {
    this.#file?.append(tfRecord(event));
  }

  start(info: RunInfo): void {
    this.#file = new AppendFile(this.#freeName());
    const seconds = this.#nowMs() / 1000;
    this.#append(versionEvent(seconds));
    this.#append(restartEvent(seconds, info.startStep === 0 ? 0 : info.startStep + 1));
  }

  step(record: StepRecord): void {
    const scalars: Record<string, number> = {};
    for (const part of [record.metrics, record.timings]) {
      for (const [name, value] of Object.entries(part)) if (Number.isFinite(value)) scalars[name] = value;
    }
    this.#append(scalarsEvent(this.#nowMs() / 1000, record.step, scalars));
  }

  flush(): void {
    this.#file?.flush();
  }

  close(): void {
    this.#file?.close();
  }
}
