// The line protocol between the driver and its contestants, with small Node programs in their place.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { Contestant, type ContestantSpec } from '../../lib/bench/contestant.js';
import { interleave } from '../../lib/bench/interleave.js';

const dir = mkdtempSync(join(tmpdir(), 'archer-bench-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

/** A contestant that answers `run` with what the JavaScript expression `answer` gives; `n` counts the runs from 1. */
function fake(name: string, answer: string, more: Partial<ContestantSpec> = {}): ContestantSpec {
  const script = `
    const { appendFileSync } = require('node:fs');
    const say = (value) => process.stdout.write(JSON.stringify(value) + '\\n');
    let n = 0;
    say({ event: 'ready', protocol: 1, name: '${name}', details: { by: '${name}' } });
    require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
      if (line === 'quit') process.exit(0);
      n += 1;
      appendFileSync('${join(dir, 'order')}', '${name} ');
      say(${answer});
    });`;
  return { name, command: process.execPath, args: ['-e', script], ...more };
}

const steady = (seconds: number) => `{ event: 'run', seconds: ${seconds}, cpu_seconds: ${seconds}, peak_bytes: 1000 + n }`;
const gone = (pid: number) => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

describe('one contestant', () => {
  test('tells about itself, runs, and ends when told', async () => {
    const contestant = await Contestant.start(fake('a', steady(0.5)));
    expect(contestant.details).toEqual({ by: 'a' });
    expect(await contestant.run()).toEqual({ seconds: 0.5, cpuSeconds: 0.5, peakBytes: 1001 });
    await contestant.close();
    expect(gone(contestant.pid!)).toBe(true);
  });

  test.each([
    ['its own code and words', `{ event: 'error', code: 'ARCHER_E_OOM', message: 'no room' }`, 'ARCHER_E_OOM', 'a: no room'],
    ['an answer without times', `{ event: 'run' }`, 'ARCHER_E_INTERNAL', 'without seconds'],
    ['its status and last words', `(console.error('it broke'), process.exit(3))`, 'ARCHER_E_INTERNAL', 'a ended with status 3: it broke'],
    ['that it was killed', `process.kill(process.pid, 'SIGKILL')`, 'ARCHER_E_INTERNAL', 'out of memory?'],
    ['what is no JSON', `(process.stdout.write('hello\\n'), 0)`, 'ARCHER_E_INTERNAL', 'no JSON: hello'],
  ])('a failure tells %s', async (_, answer, code, words) => {
    const contestant = await Contestant.start(fake('a', answer));
    await expect(contestant.run()).rejects.toMatchObject({ code, message: expect.stringContaining(words) });
    await contestant.close();
  });

  test('other numbers of an answer are kept under their names', async () => {
    const contestant = await Contestant.start(fake('a', `{ event: 'run', seconds: 1, cpu_seconds: 1, gflops: 9, kernel: 'mkl' }`));
    expect(await contestant.run()).toEqual({ seconds: 1, cpuSeconds: 1, values: { gflops: 9 } });
    await contestant.close();
  });

  test('a program that is not there', async () => {
    const start = Contestant.start({ name: 'a', command: '/no/such/program', args: [] });
    await expect(start).rejects.toMatchObject({ code: 'ARCHER_E_INTERNAL', message: expect.stringContaining('could not be started') });
  });

  test('an abort kills it in the middle of a run', async () => {
    const abort = new AbortController();
    const contestant = await Contestant.start(fake('a', `{ event: 'nothing that ends a run' }`), abort.signal);
    const run = contestant.run();
    abort.abort();
    await expect(run).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
    await contestant.close();
  });
});

describe('interleaving', () => {
  test('runs A B C A B C, warms up, and keeps the largest peak of all rounds', async () => {
    const specs = [fake('A', steady(1)), fake('B', steady(2)), fake('C', steady(3))];
    const { measurements, dropped } = await interleave(specs, { pairs: 2 });
    expect(readFileSync(join(dir, 'order'), 'utf8')).toMatch(/(^| )A B C A B C A B C A B C $/);
    expect(measurements.map(({ name, samples }) => [name, samples.map(({ seconds }) => seconds)])).toEqual([
      ['A', [1, 1]],
      ['B', [2, 2]],
      ['C', [3, 3]],
    ]);
    expect(measurements[0]!.peakBytes).toBe(1004);
    expect(dropped).toEqual([]);
  });

  test('goes on without a rival that fails, and not without ours', async () => {
    const failing = `n === 2 ? process.exit(1) : ${steady(1)}`;
    const { measurements, dropped } = await interleave([fake('A', steady(1)), fake('B', failing)], { pairs: 2 });
    expect(measurements.map(({ name }) => name)).toEqual(['A']);
    expect(dropped).toEqual([{ name: 'B', reason: expect.stringContaining('B ended with status 1') }]);
    const required = interleave([fake('A', failing, { isRequired: true })], { pairs: 2 });
    await expect(required).rejects.toMatchObject({ message: expect.stringContaining('A ended with status 1') });
  });
});
