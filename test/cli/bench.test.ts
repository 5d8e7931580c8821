// `bench loss` end to end on a tiny shape, without rivals; the serve protocol of the native program; wrong usage.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { root, runCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir.remove());

test('writes machine, load and rows, and prints the table', async () => {
  const file = join(dir.path, 'sub/loss.json');
  const args = ['--shapes', '40x16x300', '--threads', '1', '--dtype', 'bf16,float32', '--rivals', 'none', '--pairs', '2', '--json', file];
  const { code, stdout, stderr } = await runCli('bench', 'loss', ...args);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  expect(stdout).toMatch(/40x16x300 +bf16 +1 +kept +gemm-floor/);
  const { machine, load, rows } = JSON.parse(readFileSync(file, 'utf8'));
  expect(machine).toMatchObject({ cpu: expect.any(String), cores: expect.any(Number), libtorch: expect.any(String) });
  expect(load).toMatchObject({ before: expect.any(Number), after: expect.any(Number) });
  expect(rows.map(({ dtype }: { dtype: string }) => dtype)).toEqual(['bf16', 'float32']);
  for (const row of rows) {
    expect(row).toMatchObject({ bench: 'loss', device: 'cpu', shape: '40x16x300', threads: 1, against: 'gemm-floor', pairs: 2 });
    expect(row.ratio_min).toBeGreaterThan(0);
    expect(row.ratio).toBeGreaterThanOrEqual(row.ratio_min);
    expect(row.ratio_max).toBeGreaterThanOrEqual(row.ratio);
    expect(row.quotable).toBe(false);
    expect(row.reasons).toContain('only 2 pairs of 7');
    expect(Object.keys(row.details)).toEqual(['logits', 'grad_hidden', 'grad_weight']);
  }
});

describe('archer-bench-loss', () => {
  const program = join(root, 'native/build/bench/archer-bench-loss');
  const serve = (name: string, input: string) => {
    const args = ['--serve', name, '--shape', '40x16x300', '--dtype', 'float32'];
    const { stdout, status } = spawnSync(program, args, { input, encoding: 'utf8' });
    return { status, lines: stdout.trim().split('\n').map((line) => JSON.parse(line)) };
  };

  test('answers each run, refuses other words, ends at quit', () => {
    const { status, lines } = serve('archer', 'run\nwalk\nrun\nquit\nrun\n');
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run', 'error', 'run']);
    expect(lines[1]).toMatchObject({ seconds: expect.any(Number), cpu_seconds: expect.any(Number), backward_rows: 40 });
    expect(lines[2]).toMatchObject({ code: 'ARCHER_E_CONFIG', message: expect.stringContaining('walk') });
  });

  test('serves the bare products, and ends where its input does', () => {
    const { status, lines } = serve('gemm-floor', 'run\n');
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run']);
    expect(lines[1].seconds).toBeGreaterThan(0);
  });

  test('prints a table and writes JSON without Node', () => {
    const file = join(dir.path, 'native.json');
    const { stdout, status } = spawnSync(program, ['--shape', '40x16x300', '--threads', '1,2', '--pairs', '2', '--json', file], { encoding: 'utf8' });
    expect(status).toBe(0);
    expect(stdout).toContain('40x16x300');
    const { machine, rows } = JSON.parse(readFileSync(file, 'utf8'));
    expect(machine.cores).toBeGreaterThan(0);
    expect(rows.map(({ threads }: { threads: number }) => threads)).toEqual([1, 2]);
    expect(rows[0]).toMatchObject({ against: 'gemm-floor', pairs: 2, quotable: false, memory_ratio: null });
  });

  test.each([
    [['--shape', 'smollm3'], 'smollm3'],
    [['--threads', '0'], '--threads'],
    [['--tokens', '8'], '--hidden'],
    [['--fast', '1'], '--fast'],
  ])('%j is refused by name', (args, words) => {
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    expect(status).toBe(2);
    expect(stderr).toContain('ARCHER_E_CONFIG');
    expect(stderr).toContain(words);
  });
});

test.each([
  ['--shapes', 'smollm3'],
  ['--rivals', 'trl2'],
  ['--dtype', 'float16'],
  ['--memory', 'big'],
  ['--threads', '1,none'],
  ['--pairs', '0'],
  ['--python', '/no/such/python'],
])('bench loss %s %s exits with 2, the code and the value', async (option, value) => {
  const { code, stderr } = await runCli('bench', 'loss', option, value);
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_CONFIG');
  expect(stderr).toContain(option);
  expect(stderr).toContain(value.split(',').at(-1));
});

test('--help teaches', async () => {
  const { code, stdout } = await runCli('bench', 'loss', '--help');
  expect(code).toBe(0);
  for (const word of ['gemm-floor', 'quotable', 'Examples', 'smollm2-2048', 'checkpointed']) expect(stdout).toContain(word);
});
