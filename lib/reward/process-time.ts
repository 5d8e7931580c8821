// Time limits that are fair on a busy machine: while a process is ready to run and no processor is free, its clock
// stands still, up to `patience` times the limit. Read from /proc, and only when a limit seems to be reached.

import { readdirSync, readFileSync } from 'node:fs';

/** The wall clock ends a job that is still not through after so many times its limit. */
const patience = 10;
const ticksPerSecond = 100;

interface Process {
  pid: number;
  parent: number;
  /** Processor time of itself and of its children that have ended. */
  usedSeconds: number;
  /** Since the machine started. */
  beganSeconds: number;
}

/** Calls `end` when `seconds` have passed, and then again for what `excused` says of them at that time. */
export function startClock(seconds: number, excused: () => number, end: () => void): { stop(): void } {
  const began = performance.now();
  let timer: NodeJS.Timeout;
  const wait = (left: number) => {
    timer = setTimeout(() => {
      const elapsed = (performance.now() - began) / 1000;
      const rest = Math.min(seconds - (elapsed - excused()), patience * seconds - elapsed);
      if (rest > 0.01) wait(rest);
      else end();
    }, left * 1000);
  };
  wait(seconds);
  return { stop: () => clearTimeout(timer) };
}

/** How long the processes and those below them, as far as they live, have waited for a processor. 0 where that is not known. */
export function waitedSeconds(pids: readonly (number | undefined)[]): number {
  const all = processes();
  return pids.flatMap((pid) => below(pid, all)).reduce((sum, { pid }) => sum + waitOf(pid), 0);
}

/**
 * For a worker whose job starts processes one after another: what of the job's time so far was spent on waiting for a
 * processor. Of what has ended the processor time counts, of what lives all but its waiting.
 */
export function excusedSince(pid: number): () => number {
  const began = performance.now();
  const usedBefore = readProcess(pid).usedSeconds;
  return () => {
    const all = processes();
    const [worker, ...programs] = below(pid, all);
    if (worker === undefined) return 0;
    const uptime = Number(readText('/proc/uptime').split(' ')[0]);
    const age = programs.length === 0 ? 0 : uptime - Math.min(...programs.map(({ beganSeconds }) => beganSeconds));
    const waited = programs.reduce((sum, one) => sum + waitOf(one.pid), 0);
    const counted = worker.usedSeconds - usedBefore + Math.max(0, age - waited);
    return Math.max(0, (performance.now() - began) / 1000 - counted);
  };
}

function waitOf(pid: number): number {
  return Number(readText(`/proc/${pid}/schedstat`).split(' ')[1] ?? 0) / 1e9;
}

function processes(): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => readProcess(Number(name)));
}

function readProcess(pid: number): Process {
  const fields = readText(`/proc/${pid}/stat`)
    .replace(/^.*\) /s, '')
    .split(' ')
    .map(Number);
  const seconds = (...at: number[]) => at.reduce((sum, i) => sum + (fields[i] ?? 0), 0) / ticksPerSecond;
  return { pid, parent: fields[1] ?? 0, usedSeconds: seconds(11, 12, 13, 14), beganSeconds: seconds(19) };
}

function below(pid: number | undefined, all: Process[]): Process[] {
  const own = all.filter((one) => one.pid === pid);
  return [...own, ...all.filter((one) => one.parent === pid).flatMap((child) => below(child.pid, all))];
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return ''; // It has ended meanwhile.
  }
}
