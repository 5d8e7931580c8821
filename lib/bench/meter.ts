// What an iteration costs this process: time, processor time, peak memory, as a whole and by phase. Its Python twin is in
// bench/rivals_common.py.
import { readFileSync, writeFileSync } from 'node:fs';

export class Meter {
  private began = 0;
  private cpuBefore: NodeJS.CpuUsage = process.cpuUsage();
  private since = 0;
  private peakIsKnown = false;
  private phase = '';
  private readonly seconds = new Map<string, number>();
  private readonly peaks = new Map<string, number>();

  /** @param baseBytes resident before what is to be counted was there */
  constructor(private readonly baseBytes = residentBytes('VmRSS')) {}

  begin(): void {
    this.peakIsKnown = resetPeakMemory();
    this.seconds.clear();
    this.peaks.clear();
    this.cpuBefore = process.cpuUsage();
    this.began = performance.now();
    this.since = this.began;
  }

  /** Every call of the object's method counts as that phase. One within another stops its clock: every moment counts once. */
  wrap<Name extends string>(
    owner: Record<Name, (...args: never[]) => Promise<unknown>>,
    name: Name,
    phase: string,
  ): void {
    const method = owner[name].bind(owner);
    owner[name] = async (...args) => {
      const before = this.enter(phase);
      try {
        return await method(...args);
      } finally {
        this.enter(before);
      }
    };
  }

  /** The answer to `run`: seconds, cpu_seconds, peak_bytes, and <phase>_seconds and <phase>_peak_bytes for every phase. */
  end(): Record<string, number | null> {
    this.enter('');
    const { user, system } = process.cpuUsage(this.cpuBefore);
    const phases = [...this.seconds].filter(([phase]) => phase !== '');
    return {
      seconds: (performance.now() - this.began) / 1000,
      cpu_seconds: (user + system) / 1e6,
      peak_bytes: this.peakIsKnown ? Math.max(...this.peaks.values()) : null,
      ...Object.fromEntries(phases.map(([phase, seconds]) => [`${phase}_seconds`, seconds])),
      ...(this.peakIsKnown
        ? Object.fromEntries(phases.map(([phase]) => [`${phase}_peak_bytes`, this.peaks.get(phase)!]))
        : {}),
    };
  }

  /** @returns the phase that ends */
  private enter(phase: string): string {
    const before = this.phase;
    const now = performance.now();
    const peak = Math.max(0, residentBytes('VmHWM') - this.baseBytes);
    this.seconds.set(before, (this.seconds.get(before) ?? 0) + (now - this.since) / 1000);
    this.peaks.set(before, Math.max(this.peaks.get(before) ?? 0, peak));
    resetPeakMemory();
    this.since = now;
    this.phase = phase;
    return before;
  }
}

/** VmRSS (now) or VmHWM (peak) of this process in bytes; 0 where nothing tells. */
export function residentBytes(key: 'VmRSS' | 'VmHWM'): number {
  try {
    const [, kilobytes = 0] =
      new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
    return Number(kilobytes) * 1024;
  } catch {
    return 0;
  }
}

/** The high-water mark falls back to what is resident; false where the kernel does not allow it. */
function resetPeakMemory(): boolean {
  try {
    writeFileSync('/proc/self/clear_refs', '5');
    return true;
  } catch {
    return false;
  }
}
