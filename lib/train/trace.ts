// A Chrome trace of a run (chrome://tracing, ui.perfetto.dev): the phases of each step as JavaScript sees them, and below them
// what the engine's thread did. One clock for both. docs/memory.md says how to read it.
import { appendFileSync, writeFileSync } from 'node:fs';
import { ioError } from '../io-error.js';
import { switchProfile, takeSpans } from '../native/engine.js';

interface TraceEvent {
  name: string;
  ph: 'X' | 'M' | 'i';
  pid: number;
  tid: number;
  /** Microseconds. */
  ts?: number;
  dur?: number;
  s?: 'p';
  args?: object;
}

const javaScript = 1;
const engine = 2;
const nowUs = () => Number(process.hrtime.bigint()) / 1000;

export class Trace {
  private events: TraceEvent[] = [
    { name: 'thread_name', ph: 'M', pid: 1, tid: javaScript, args: { name: 'steps' } },
    { name: 'thread_name', ph: 'M', pid: 1, tid: engine, args: { name: 'engine' } },
  ];
  private isEmpty = true;

  /**
   * Begins the file and switches the engine's spans on, which all runs of a process share.
   *
   * @throws ARCHER_E_IO where it cannot be written
   */
  constructor(private readonly path: string) {
    this.guarded(() => writeFileSync(path, '{"displayTimeUnit":"ms","traceEvents":['));
    switchProfile(true);
  }

  /** Runs `work` as a span of the steps' track. */
  async time<Result>(name: string, work: () => Promise<Result>): Promise<Result> {
    const ts = nowUs();
    try {
      return await work();
    } finally {
      this.events.push({ name, ph: 'X', pid: 1, tid: javaScript, ts, dur: nowUs() - ts });
    }
  }

  /** Appends what has ended: once per step, so that the file holds whole steps whatever happens next. */
  flush(): void {
    const { names, beginUs, endUs, lost } = takeSpans();
    names.forEach((name, i) => {
      const ts = beginUs[i] as number;
      this.events.push({ name, ph: 'X', pid: 1, tid: engine, ts, dur: (endUs[i] as number) - ts });
    });
    if (lost > 0) this.events.push({ name: `${lost} spans lost`, ph: 'i', s: 'p', pid: 1, tid: engine, ts: nowUs() });
    if (this.events.length === 0) return;
    const lines = this.events.splice(0).map((event) => JSON.stringify(event));
    this.guarded(() => appendFileSync(this.path, `${this.isEmpty ? '' : ','}\n${lines.join(',\n')}`));
    this.isEmpty = false;
  }

  close(): void {
    switchProfile(false);
    this.flush();
    this.guarded(() => appendFileSync(this.path, '\n]}\n'));
  }

  private guarded(write: () => void): void {
    try {
      write();
    } catch (error) {
      throw ioError('write the profile to', this.path, error);
    }
  }
}
