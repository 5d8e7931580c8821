// What a benchmark needs to know about the machine (Linux): its description, and how busy it is.
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release, totalmem } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Machine {
  cpu: string;
  cores: number;
  memory_gib: number;
  kernel: string;
  node: string;
  [more: string]: unknown;
}

export function describeMachine(more: Record<string, unknown> = {}): Machine {
  return {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: availableParallelism(),
    memory_gib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.version,
    ...more,
  };
}

/** The load average of the last minute. */
export function load(): number {
  return Number((loadavg()[0] ?? 0).toFixed(2));
}

const ticksPerSecond = 100; // USER_HZ, which is 100 on every Linux that Node runs on

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

/** Seconds that all processors together have been busy, time stolen by a hypervisor included; 0 where nothing tells. */
export function systemCpuSeconds(stat = read('/proc/stat')): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = (stat.split('\n')[0] ?? '')
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq + steal) / ticksPerSecond;
}

/** CPU seconds of a process and all its threads; 0 where it has gone. */
export function processCpuSeconds(pid: number | undefined, stat = read(`/proc/${pid}/stat`)): number {
  // The name, in parentheses, may hold anything: count the fields after it.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11] ?? 0) + Number(fields[12] ?? 0)) / ticksPerSecond;
}

/** Processors that are busy now, on average over `milliseconds`. */
export async function busyCores(milliseconds = 1000): Promise<number> {
  const before = systemCpuSeconds();
  const began = performance.now();
  await sleep(milliseconds);
  return (systemCpuSeconds() - before) / ((performance.now() - began) / 1000);
}
