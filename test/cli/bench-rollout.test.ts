// `bench rollout` end to end on a tiny model, without rivals; the contestants' protocol; wrong usage.
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { root, runCli } from './run-cli.js';

const model = join(root, 'test/golden/models/llama-hub-style');
let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir.remove());

const { NODE_OPTIONS: _, ...env } = process.env;

test('prints machine, load and rows as JSON', async () => {
  const args = ['--model', model, '--batch', '1,3', '--threads', '1', '--prompt-tokens', '5', '--new-tokens', '7'];
  const { code, stdout, stderr } = await runCli(
    'bench',
    'rollout',
    ...args,
    '--rivals',
    'none',
    '--pairs',
    '2',
    '--json',
  );
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const { machine, load, rows } = JSON.parse(stdout);
  expect(machine).toMatchObject({ cpu: expect.any(String), cores: expect.any(Number), libtorch: expect.any(String) });
  expect(load).toMatchObject({ before: expect.any(Number), after: expect.any(Number) });
  expect(rows.map(({ shape, dtype }: { shape: string; dtype: string }) => `${shape} ${dtype}`)).toEqual([
    'llama-hub-style b1 5+7 bf16',
    'llama-hub-style b1 5+7 float32',
    'llama-hub-style b3 5+7 bf16',
    'llama-hub-style b3 5+7 float32',
  ]);
  for (const row of rows) {
    expect(row).toMatchObject({
      bench: 'rollout',
      device: 'cpu',
      threads: 1,
      against: 'roofline',
      memory: 'kept',
      pairs: 2,
      quotable: false,
    });
    expect(row.ratio).toBeGreaterThan(0);
    expect(row.ratio).toBeLessThan(1);
    expect(row.tokens_per_second).toBeGreaterThan(0);
    expect(row.rival_tokens_per_second).toBeGreaterThan(row.tokens_per_second);
    expect(row.peak_bytes).toBeGreaterThan(0);
    expect(row.details).toMatchObject({
      gb_per_second: expect.any(Number),
      gflops: expect.any(Number),
      kernel: expect.any(String),
    });
  }
});

test('says in one sentence why llama.cpp is left out', async () => {
  const args = [
    '--model',
    model,
    '--batch',
    '1',
    '--threads',
    '1',
    '--dtype',
    'bf16',
    '--new-tokens',
    '3',
    '--pairs',
    '1',
  ];
  const { code, stdout, stderr } = await runCli('bench', 'rollout', ...args, '--rivals', 'llama.cpp');
  expect(code).toBe(0);
  expect(stderr).toMatch(/llama\.cpp is left out: it needs --llama .* and --gguf/);
  expect(stdout).toMatch(/llama-hub-style b1 64\+3 +bf16 +1 +kept +roofline/);
});

test('batch invariance is a rival of its own, in float32', async () => {
  const args = ['--model', model, '--batch', '2', '--threads', '1', '--new-tokens', '3', '--pairs', '1'];
  const { code, stdout } = await runCli('bench', 'rollout', ...args, '--rivals', 'invariant');
  expect(code).toBe(0);
  expect(stdout).toMatch(/float32 +1 +kept +invariant/);
  expect(stdout).not.toMatch(/bf16 +1 +kept +invariant/);
});

describe('the contestants', () => {
  const talk = (command: string, args: string[], input: string) => {
    const { stdout, status } = spawnSync(command, args, { input, encoding: 'utf8', env });
    return {
      status,
      lines: stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    };
  };
  const task = [
    '--model',
    model,
    '--dtype',
    'float32',
    '--threads',
    '1',
    '--batch',
    '2',
    '--prompt-tokens',
    '5',
    '--new-tokens',
    '7',
  ];

  test('archer answers each run, refuses other words, ends at quit', () => {
    const program = join(root, 'dist/bench/serve-rollout.js');
    const { status, lines } = talk(process.execPath, [program, ...task], 'run\nwalk\nrun\nquit\nrun\n');
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run', 'error', 'run']);
    expect(lines[1]).toMatchObject({
      seconds: expect.any(Number),
      cpu_seconds: expect.any(Number),
      peak_bytes: expect.any(Number),
    });
    expect(lines[2]).toMatchObject({ code: 'ARCHER_E_CONFIG', message: expect.stringContaining('walk') });
  });

  test('archer tells a model that is not there with its code', () => {
    const program = join(root, 'dist/bench/serve-rollout.js');
    const { status, lines } = talk(process.execPath, [program, '--model', '/no/such/model'], '');
    expect(status).toBe(1);
    expect(lines[0]).toMatchObject({
      event: 'error',
      code: 'ARCHER_E_MODEL',
      message: expect.stringContaining('/no/such/model'),
    });
  });

  test('the roofline measures a bandwidth and a rate of products in each run', () => {
    const program = join(root, 'native/build/bench/archer-bench-roofline');
    const { status, lines } = talk(
      program,
      ['--threads', '1', '--dtype', 'float32', '--bytes', '3000001', '--hidden', '32', '--columns', '96'],
      'run\nquit\n',
    );
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run']);
    expect(lines[1].bytes_per_second).toBeGreaterThan(1e8);
    expect(lines[1].flops_per_second).toBeGreaterThan(1e7);
    const refused = talk(program, ['--threads', 'none'], '');
    expect(refused).toMatchObject({
      status: 2,
      lines: [{ event: 'error', code: 'ARCHER_E_CONFIG', message: expect.stringContaining('none') }],
    });
  });

  test('llama.cpp without its library says where it looked', () => {
    const program = join(root, 'dist/bench/serve-llama.js');
    const { status, lines } = talk(process.execPath, [program, ...task, '--llama', dir.path, '--gguf', 'x.gguf'], '');
    expect(status).toBe(1);
    expect(lines[0]).toMatchObject({
      event: 'error',
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining('npm install node-llama-cpp'),
    });
  });
});

test.each([
  ['--batch', '0'],
  ['--threads', '1,none'],
  ['--dtype', 'float16'],
  ['--rivals', 'vllm'],
  ['--memory', 'big'],
  ['--new-tokens', '200000'],
  ['--gguf', 'model.gguf'],
  ['--gguf', 'bf16=/no/such/file'],
  ['--python', '/no/such/python'],
])('bench rollout %s %s exits with 2, the code and the value', async (option, value) => {
  const { code, stderr } = await runCli('bench', 'rollout', option, value);
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_CONFIG');
  expect(stderr).toContain(option);
  expect(stderr).toContain(value.split(',').at(-1));
});

test('a --model that is none exits with 2', async () => {
  writeFileSync(join(dir.path, 'config.json'), '{}');
  const { code, stderr } = await runCli('bench', 'rollout', '--rivals', 'none', '--model', dir.path);
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_MODEL');
});

test('--help teaches', async () => {
  const { code, stdout } = await runCli('bench', 'rollout', '--help');
  expect(code).toBe(0);
  for (const word of ['roofline', 'quotable', 'Examples', '--gguf', 'llama.cpp']) expect(stdout).toContain(word);
});
