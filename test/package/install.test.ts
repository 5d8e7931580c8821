// The package's main use: the tarball in an empty project, install scripts blocked, then the commands of the README.
// Slow (a whole compilation where no compiler cache helps), so in a file of its own.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../scripts/tools.mjs';

const minutes = 60_000;
let folder: string;
let project: string;
const installed = () => join(project, 'node_modules', 'archer-native');

function run(command: string, args: string[], cwd = project) {
  const env = { ...process.env, NODE_OPTIONS: '', npm_config_loglevel: 'error' };
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', cwd, env, timeout: 9 * minutes });
  return { status, stdout, stderr };
}

function succeed(command: string, args: string[], cwd?: string): string {
  const { status, stdout, stderr } = run(command, args, cwd);
  if (status !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${status}:\n${stdout}\n${stderr}`);
  return stdout;
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'archer-install-'));
  project = join(folder, 'project');
  mkdirSync(project);
  writeFileSync(join(project, 'package.json'), '{ "private": true }\n');
  succeed('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], packageRoot);
  const tarball = readdirSync(folder).find((name) => name.endsWith('.tgz'))!;
  succeed('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefer-offline', join(folder, tarball)]);
}, 5 * minutes);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

test('the command is there and knows its version without the addon', () => {
  const { version } = JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8'));
  expect(succeed('npx', ['--no-install', 'archer-native', '--version']).trim()).toBe(version);
  expect(existsSync(join(installed(), 'lib'))).toBe(false);
  expect(existsSync(join(installed(), 'native', 'build'))).toBe(false);
});

test('before setup, a command that needs the addon says what to run', () => {
  const { status, stderr } = run('npx', [
    '--no-install',
    'archer-native',
    'train',
    '--set',
    'trainer.total_training_steps=1',
  ]);
  expect(stderr).toContain('npx archer-native setup');
  expect([1, 2]).toContain(status);
});

test(
  'setup builds the addon, once',
  () => {
    succeed('npx', ['--no-install', 'archer-native', 'setup']);
    const record = JSON.parse(readFileSync(join(installed(), 'native', 'build', 'archer-build.json'), 'utf8'));
    expect(existsSync(join(installed(), 'native', 'build', 'Release', 'archer_native.node'))).toBe(true);
    expect(existsSync(join(record.libtorchRoot, 'lib', 'libtorch_cpu.so'))).toBe(true);
    const again = run('npx', ['--no-install', 'archer-native', 'setup']);
    expect(again.status).toBe(0);
    expect(again.stdout + again.stderr).toContain('up to date');
  },
  10 * minutes,
);

test(
  'train runs a step of the quickstart in the project',
  () => {
    // The quickstart with less to sample: one update, no evaluation.
    const smaller = [
      'data.train_batch_size=4',
      'rollout.n=4',
      'actor.ppo_mini_batch_size=4',
      'trainer.test_freq=-1',
      'trainer.val_before_train=false',
    ];
    const settings = ['trainer.total_training_steps=1', ...smaller].flatMap((setting) => ['--set', setting]);
    succeed('npx', ['--no-install', 'archer-native', 'train', ...settings]);
    const metrics = readdirSync(project, { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('metrics.jsonl') && !path.startsWith('node_modules'))
      .map((path) => readFileSync(join(project, path), 'utf8').trim().split('\n'));
    expect(metrics).toHaveLength(1);
    expect(metrics[0]!.map((line) => JSON.parse(line).step as number)).toContain(1);
  },
  5 * minutes,
);

test('the package can be imported by its name', () => {
  const script = "import { train, Policy } from 'archer-native'; console.log(typeof train, typeof Policy)";
  expect(succeed(process.execPath, ['--input-type=module', '-e', script]).trim()).toBe('function function');
});
