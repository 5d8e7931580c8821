// Seconds per stage of a step, by verl's names (timing_s/<stage>).
import type { Trace } from './trace.js';

export class Stopwatch {
  private readonly seconds = new Map<string, number>();
  private readonly started = performance.now();

  /** @param trace gets every stage as a span too */
  constructor(private readonly trace?: Trace) {}

  /** Runs `work` and adds its time to the stage, also when it throws. */
  async time<Result>(stage: string, work: () => Promise<Result>): Promise<Result> {
    const begin = performance.now();
    try {
      return await (this.trace ? this.trace.time(stage, work) : work());
    } finally {
      this.seconds.set(stage, (this.seconds.get(stage) ?? 0) + (performance.now() - begin) / 1000);
    }
  }

  /** timing_s/<stage> for every stage, and timing_s/step since this stopwatch was made. */
  timings(): Record<string, number> {
    const result: Record<string, number> = {};
    for (const [stage, seconds] of this.seconds) result[`timing_s/${stage}`] = seconds;
    result['timing_s/step'] = (performance.now() - this.started) / 1000;
    return result;
  }
}
