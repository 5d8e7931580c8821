// `bench update` end to end on a tiny model, without rivals; the contestants' protocol; wrong usage.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { root, runCli } from './run-cli.js';

const model = join(root, 'test/golden/models/llama-hub-style');
const { NODE_OPTIONS: _, ...env } = process.env;

test('prints machine, load and rows as JSON', async () => {
  const args = [
    '--model',
    model,
    '--shapes',
    '2x12,3x9',
    '--prompt-tokens',
    '4',
    '--threads',
    '1',
    '--dtype',
    'bf16,float32',
  ];
  const { code, stdout, stderr } = await runCli(
    'bench',
    'update',
    ...args,
    '--rivals',
    'none',
    '--pairs',
    '2',
    '--json',
  );
  expect({ code, stderr }).toMatchObject({ code: 0 });
  const { machine, rows } = JSON.parse(stdout);
  expect(machine).toMatchObject({ cpu: expect.any(String), cores: expect.any(Number), libtorch: expect.any(String) });
  expect(rows.map(({ shape, dtype }: { shape: string; dtype: string }) => `${shape} ${dtype}`)).toEqual([
    'llama-hub-style 2x12 bf16',
    'llama-hub-style 2x12 float32',
    'llama-hub-style 3x9 bf16',
    'llama-hub-style 3x9 float32',
  ]);
  for (const row of rows) {
    expect(row).toMatchObject({
      bench: 'update',
      device: 'cpu',
      threads: 1,
      against: 'gemm-rate',
      pairs: 2,
      quotable: false,
    });
    expect(row.ratio).toBeGreaterThan(0);
    expect(row.ratio).toBeLessThan(1);
    expect(row.tokens_per_second).toBeGreaterThan(0);
    expect(row.details).toMatchObject({ gflop: expect.any(Number), gflops: expect.any(Number) });
  }
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

  test('archer answers each run', () => {
    const task = [
      '--model',
      model,
      '--dtype',
      'bf16',
      '--threads',
      '1',
      '--sequences',
      '2',
      '--tokens',
      '9',
      '--prompt-tokens',
      '3',
    ];
    const { status, lines } = talk(
      process.execPath,
      [join(root, 'dist/bench/serve-update.js'), ...task],
      'run\nrun\nquit\n',
    );
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run', 'run']);
    expect(lines[1]).toMatchObject({
      seconds: expect.any(Number),
      cpu_seconds: expect.any(Number),
      peak_bytes: expect.any(Number),
    });
  });

  test('the products of each layer are timed under its name', () => {
    const program = join(root, 'native/build/bench/archer-bench-products');
    const { status, lines } = talk(
      program,
      ['--dtype', 'float32', '--products', '8x48x32,5x64x32'],
      'run\nwalk\nquit\n',
    );
    expect(status).toBe(0);
    expect(lines.map(({ event }) => event)).toEqual(['ready', 'run', 'error']);
    expect(Object.keys(lines[0].details)).toEqual(['8x48x32', '5x64x32']);
    expect(lines[0].details['8x48x32'].grad_weight.kernel).toEqual(expect.any(String));
    expect(lines[1]['8x48x32']).toBeGreaterThan(0);
    expect(lines[1]['5x64x32']).toBeGreaterThan(0);
    const refused = talk(program, ['--products', '8x48'], '');
    expect(refused).toMatchObject({
      status: 2,
      lines: [{ event: 'error', code: 'ARCHER_E_CONFIG', message: expect.stringContaining('8x48') }],
    });
  });
});

test.each([
  ['--shapes', '4'],
  ['--shapes', '4x64'],
  ['--shapes', '4x200000'],
  ['--threads', '1,none'],
  ['--dtype', 'float16'],
  ['--rivals', 'trl'],
  ['--memory', 'big'],
  ['--python', '/no/such/python'],
])('bench update %s %s exits with 2, the code and the value', async (option, value) => {
  const { code, stderr } = await runCli('bench', 'update', option, value);
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_CONFIG');
  expect(stderr).toContain(option);
  expect(stderr).toContain(value.split(',').at(-1));
});

test('--help teaches', async () => {
  const { code, stdout } = await runCli('bench', 'update', '--help');
  expect(code).toBe(0);
  for (const word of ['gemm-rate', 'hf-bf16', 'quotable', 'Examples', '4x256']) expect(stdout).toContain(word);
});
