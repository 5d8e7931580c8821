// Time limits on a busy machine: what a job waited for a processor does not count, and there is an end to that.
import { spawn } from 'node:child_process';
import { expect, test } from '@jest/globals';
import { excusedSince, startClock, waitedSeconds } from '../../lib/reward/process-time.js';

const secondsUntilEnd = (seconds: number, excused: () => number) =>
  new Promise<number>((resolve) => {
    const began = performance.now();
    startClock(seconds, excused, () => resolve((performance.now() - began) / 1000));
  });

test('a clock ends at its limit, later by what is excused, and at ten times the limit at last', async () => {
  const ends = [() => 0, () => 0.2, () => 100].map((excused) => secondsUntilEnd(0.1, excused));
  const [plain = 0, excused = 0, starved = 0] = await Promise.all(ends);
  expect(plain).toBeGreaterThanOrEqual(0.09);
  expect(excused).toBeGreaterThanOrEqual(0.29);
  expect(starved).toBeGreaterThanOrEqual(0.98);
  expect(plain).toBeLessThan(excused);
  expect(excused).toBeLessThan(starved);
});

test('a process that sleeps waits for no processor; two that share one do', async () => {
  const children = [
    ['taskset', '-c', '0', 'sleep', '5'],
    ['taskset', '-c', '0', 'sh', '-c', 'while :; do :; done'],
    ['taskset', '-c', '0', 'sh', '-c', 'while :; do :; done'],
  ].map(([file = '', ...args]) => spawn(file, args));
  const [sleeper, ...spinners] = children.map(({ pid }) => pid);
  try {
    const excused = excusedSince(process.pid);
    await new Promise((done) => setTimeout(done, 1500));
    expect(waitedSeconds([sleeper])).toBeLessThan(0.5);
    expect(waitedSeconds(spinners)).toBeGreaterThan(0.5);
    expect(excused()).toBeGreaterThanOrEqual(0);
  } finally {
    for (const child of children) child.kill('SIGKILL');
  }
});
