// `bench step` end to end on a tiny model, without TRL; wrong usage.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from '@jest/globals';
import { root, runCli } from './run-cli.js';

const model = join(root, 'test/golden/models/llama-hub-style');
const small = ['--model', model, '--prompts', '2', '--n', '4', '--threads', '1', '--prompt-tokens', '5'];
const phases = ['forward_backward', 'generate', 'optimizer', 'score'];

test('prints rows with phases as JSON, for every length', async () => {
  const args = [
    ...small,
    '--new-tokens',
    '6,9',
    '--dtype',
    'bf16,float32',
    '--rivals',
    'none',
    '--pairs',
    '2',
    '--json',
  ];
  const { code, stdout, stderr } = await runCli('bench', 'step', ...args);
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const { rows } = JSON.parse(stdout);
  expect(rows.map(({ shape, dtype }: { shape: string; dtype: string }) => `${shape} ${dtype}`)).toEqual([
    'llama-hub-style 2x4 5+6 bf16',
    'llama-hub-style 2x4 5+6 float32',
    'llama-hub-style 2x4 5+9 bf16',
    'llama-hub-style 2x4 5+9 float32',
  ]);
  for (const row of rows) {
    expect(row).toMatchObject({ bench: 'step', threads: 1, against: 'roofline', pairs: 2, quotable: false });
    expect(row.ratio).toBeGreaterThan(0);
    expect(row.ratio).toBeLessThan(1);
    expect(Object.keys(row.phases).sort()).toEqual(phases);
    for (const { seconds, peak_bytes: bytes } of Object.values<Record<string, number>>(row.phases)) {
      expect(seconds).toBeGreaterThan(0);
      expect(bytes).toBeLessThanOrEqual(row.peak_bytes);
    }
  }
});

test('recomputed old log-probs are a rival of their own', async () => {
  const { code, stdout } = await runCli('bench', 'step', ...small, '--rivals', 'recompute', '--pairs', '1');
  expect(code).toBe(0);
  expect(stdout).toMatch(/kept +recompute +score /);
});

test('ours refuses other words and ends at quit', () => {
  const program = join(root, 'dist/bench/serve-step.js');
  const task = [...small.slice(0, 2), '--dtype', 'bf16', '--batch', '2', '--n', '2', '--threads', '1'];
  const { NODE_OPTIONS: _, ...env } = process.env;
  const input = 'walk\nrun\nquit\nrun\n';
  const args = [program, ...task, '--prompt-tokens', '3', '--new-tokens', '4'];
  const { stdout, status } = spawnSync(process.execPath, args, { input, encoding: 'utf8', env });
  expect(status).toBe(0);
  const events = stdout.trim().split('\n');
  expect(events.map((line) => JSON.parse(line).event)).toEqual(['ready', 'error', 'run']);
});

test.each([
  ['--prompts', '0'],
  ['--n', '1'],
  ['--threads', '1,none'],
  ['--dtype', 'float16'],
  ['--rivals', 'verl'],
  ['--memory', 'big'],
  ['--new-tokens', '64,200000'],
  ['--python', '/no/such/python'],
])('bench step %s %s exits with 2, the code and the value', async (option, value) => {
  const { code, stderr } = await runCli('bench', 'step', option, value);
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_CONFIG');
  expect(stderr).toContain(option);
  expect(stderr).toContain(value.split(',').at(-1));
});

test('--help teaches', async () => {
  const { code, stdout } = await runCli('bench', 'step', '--help');
  expect(code).toBe(0);
  for (const word of ['roofline', 'quotable', 'Examples', 'trl-bf16', 'per setting']) expect(stdout).toContain(word);
});
