// What `npm pack` would publish: everything that a dependent needs to run and to build the addon, and nothing else.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../scripts/tools.mjs';

interface Packed {
  size: number;
  files: { path: string; mode: number }[];
}

let packed: Packed;
let paths: string[];

beforeAll(() => {
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const { stdout } = spawnSync('npm', args, {
    encoding: 'utf8',
    cwd: packageRoot,
    env: { ...process.env, NODE_OPTIONS: '' },
  });
  const report = JSON.parse(stdout) as Packed[] | Record<string, Packed>;
  packed = Object.values(report)[0] as Packed;
  paths = packed.files.map((file) => file.path);
});

test('everything needed is in it', () => {
  for (const path of [
    'package.json',
    'LICENSE',
    'README.md',
    'CMakeLists.txt',
    'binding.gyp',
    'bin/archer-native.js',
    'cmake/libtorch.json',
    'scripts/build-native.mjs',
    'scripts/install.mjs',
    'scripts/libtorch.mjs',
    'scripts/tools.mjs',
    'native/binding/addon.cpp',
    'native/loss/token_math.h',
    'native/bench/loss.cpp', // `archer-native bench` builds it
    'native/bench/roofline.cpp',
    'bench/rivals_common.py',
    'bench/rivals_loss.py',
    'bench/rivals_rollout.py',
    'dist/bench/serve-rollout.js',
    'recipes/quickstart.yaml',
    'assets/model/config.json',
    'assets/model/model.safetensors',
    'assets/model/tokenizer.json',
    'dist/index.js',
    'dist/index.d.ts',
    'dist/cli/main.js',
    'dist/reward/worker.mjs',
    'dist/reward/code/harness.py', // runs inside the sandbox
    'dist/reward/code/rights.py',
    'dist/reward/code/pyodide-rights.py',
    'dist/reward/code/pyodide-runner.mjs',
  ]) {
    expect(paths).toContain(path);
  }
  expect(paths.filter((path) => path.startsWith('assets/task/')).length).toBeGreaterThan(0);
  // npm gives the executable bit by package.json's bin.
  expect(packed.files.find((file) => file.path === 'bin/archer-native.js')!.mode & 0o111).not.toBe(0);
});

test('nothing else is', () => {
  const foreign =
    /^(test|tools|bench\/results|examples|lib|node_modules|runs|build|native\/(build|tests))\/|^bench\/.*\.mjs$|\.tsbuildinfo$|\.d\.mts$|\.log$|test\.mjs$|\.so(\.|$)|\.node$/;
  expect(paths.filter((path) => foreign.test(path))).toEqual([]);
  const known = new Set(['bin', 'dist', 'native', 'cmake', 'scripts', 'recipes', 'assets', 'docs', 'bench']);
  expect(paths.filter((path) => path.includes('/') && !known.has(path.split('/')[0]!))).toEqual([]);
});

test('every compiled file has its source', () => {
  const orphans = paths
    .filter((path) => path.startsWith('dist/'))
    .map((path) => path.replace(/^dist\//, 'lib/').replace(/(\.d)?\.(ts|js|mjs)$/, ''))
    .filter((base) => ['', '.ts', '.mjs'].every((ending) => !existsSync(join(packageRoot, `${base}${ending}`))));
  expect(orphans).toEqual([]);
});

test('it stays below 15 MB', () => {
  expect(packed.size).toBeLessThan(15e6);
});
