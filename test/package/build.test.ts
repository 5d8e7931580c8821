// scripts/build-native.mjs on a small package of its own: a one-file addon, real cmake-js and compiler, a stand-in
// libtorch.

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { packageRoot } from '../../scripts/tools.mjs';

let root: string;
const source = () => join(root, 'native', 'binding', 'addon.cpp');
const addon = () => join(root, 'native', 'build', 'Release', 'archer_native.node');
const record = () => JSON.parse(readFileSync(join(root, 'native', 'build', 'archer-build.json'), 'utf8'));

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

function makeLibtorch(name: string, version: string): string {
  const folder = join(root, name);
  write(join(folder, 'lib', 'libtorch_cpu.so'), '');
  write(join(folder, 'include', 'torch', 'x.h'), '');
  write(join(folder, 'version.py'), `__version__ = '${version}'\n`);
  return folder;
}

function build(args: string[] = [], env: Record<string, string | undefined> = {}) {
  const script = join(root, 'scripts', 'build-native.mjs');
  const whole = { ...process.env, NODE_OPTIONS: '', ARCHER_LIBTORCH: undefined, LIBTORCH: undefined, ...env };
  const { status, stderr } = spawnSync(process.execPath, [script, ...args], {
    encoding: 'utf8',
    env: whole,
    cwd: tmpdir(),
  });
  return { status, stderr };
}

const answer = (value: number) => `#include <node_api.h>
#include <string>
NAPI_MODULE_INIT() {
  napi_value result;
  napi_create_int32(env, ${value}, &result);
  napi_set_named_property(env, exports, "answer", result);
  return exports;
}
`;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'archer-build-'));
  cpSync(join(packageRoot, 'scripts'), join(root, 'scripts'), { recursive: true });
  cpSync(join(packageRoot, 'cmake'), join(root, 'cmake'), { recursive: true });
  symlinkSync(join(packageRoot, 'node_modules'), join(root, 'node_modules'));
  write(
    join(root, 'package.json'),
    '{ "name": "small", "version": "1.2.3", "type": "module", "binary": { "napi_versions": [9] } }',
  );
  write(source(), answer(1));
  write(
    join(root, 'CMakeLists.txt'),
    `cmake_minimum_required(VERSION 3.22)
project(small LANGUAGES CXX)
option(ARCHER_TESTS "" OFF)
add_library(archer_native SHARED native/binding/addon.cpp)
set_target_properties(archer_native PROPERTIES PREFIX "" SUFFIX ".node" LIBRARY_OUTPUT_DIRECTORY "\${CMAKE_BINARY_DIR}/Release")
target_include_directories(archer_native PRIVATE \${CMAKE_JS_INC})
if(ARCHER_TESTS)
  add_custom_target(extra ALL COMMAND \${CMAKE_COMMAND} -E touch "\${CMAKE_BINARY_DIR}/extra")
endif()
`,
  );
});

afterAll(() => {
  rmSync(root, { recursive: true, force: true });
});

test('every missing tool is in one sentence', () => {
  const { status, stderr } = build([], { PATH: join(root, 'no-tools'), CXX: undefined });
  expect(status).toBe(1);
  expect(stderr.trim().split('\n').at(-1)).toMatch(
    /^archer-native: Building needs CMake 3\.22 or newer \(cmake\), make or ninja, a C\+\+20 compiler \(g\+\+ 12 or newer\)\. On Debian/,
  );
});

test('tools that are too old are named with their version', () => {
  const tools = join(root, 'old-tools');
  for (const [name, says] of [
    ['cmake', 'cmake version 3.18.4'],
    ['c++', 'c++ (Debian 10.2.1-6) 10.2.1'],
    ['make', 'GNU Make 4.3'],
  ]) {
    write(join(tools, name!), `#!/bin/sh\necho "${says}"\n`);
    spawnSync('chmod', ['+x', join(tools, name!)]);
  }
  const { stderr } = build([], { PATH: `${tools}:/nowhere`, CXX: undefined });
  expect(stderr).toContain('CMake 3.22 or newer (this one is 3.18)');
  expect(stderr).toContain('c++ is 10.2');
});

test('an unknown option is refused', () => {
  expect(build(['--test'])).toMatchObject({ status: 1, stderr: expect.stringContaining('--test is not an option') });
});

test('builds, does nothing again, rebuilds what changed, and starts anew with another libtorch', () => {
  const first = makeLibtorch('torch-a', '2.13.0+cpu');
  expect(build([], { ARCHER_LIBTORCH: first })).toMatchObject({
    status: 0,
    stderr: expect.stringContaining('built in'),
  });
  const load = createRequire(import.meta.url);
  expect((load(addon()) as { answer: number }).answer).toBe(1);
  expect(record()).toMatchObject({
    archer: '1.2.3',
    libtorchRoot: first,
    libtorchVersion: '2.13.0+cpu',
    arch: process.arch,
    nodeApi: 9,
  });

  const again = build([], { ARCHER_LIBTORCH: first });
  expect(again).toEqual({ status: 0, stderr: 'archer-native: the addon is up to date.\n' });
  // It keeps its libtorch without being told again, and needs no tool to see that nothing changed.
  expect(build([], { PATH: join(root, 'no-tools') }).stderr).toBe('archer-native: the addon is up to date.\n');

  writeFileSync(source(), answer(2));
  const changed = build();
  expect(changed.stderr).not.toContain('configuring');
  const value = spawnSync(process.execPath, ['-p', `require(${JSON.stringify(addon())}).answer`], { encoding: 'utf8' });
  expect(value.stdout).toBe('2\n');

  expect(build(['--tests']).stderr).toContain('configuring');
  expect(existsSync(join(root, 'native', 'build', 'extra'))).toBe(true);
  expect(build(['--tests']).stderr).toContain('up to date');
  expect(build().stderr).toContain('up to date');

  writeFileSync(join(root, 'native', 'build', 'leftover'), '');
  const second = makeLibtorch('torch-b', '2.14.1+cpu');
  expect(build([], { ARCHER_LIBTORCH: second }).stderr).toContain(`configuring with libtorch 2.14.1+cpu in ${second}`);
  expect(existsSync(join(root, 'native', 'build', 'leftover'))).toBe(false);
  expect(record()).toMatchObject({ libtorchRoot: second });

  makeLibtorch('torch-b', '2.14.2+cpu');
  expect(build().stderr).toContain('configuring with libtorch 2.14.2+cpu');
});

const npm = spawnSync('npm', ['--version'], { encoding: 'utf8' });
const nodeGyp = join(
  spawnSync('npm', ['root', '-g'], { encoding: 'utf8' }).stdout.trim(),
  'npm/node_modules/node-gyp/bin/node-gyp.js',
);
const hasMake = spawnSync('make', ['--version']).status === 0;
const gypReason =
  npm.status !== 0 || !existsSync(nodeGyp) ? 'npm brings no node-gyp here' : hasMake ? '' : 'no make here';

(gypReason ? test.skip : test)(
  `node-gyp rebuild ends in the same build${gypReason && ` (skipped: ${gypReason})`}`,
  () => {
    // Enough of Node's headers for a target without sources, so that node-gyp asks no network for them.
    const headers = join(root, 'headers', 'include', 'node');
    write(join(headers, 'common.gypi'), '{ }');
    write(join(headers, 'config.gypi'), "{ 'variables': {}, 'target_defaults': {} }");
    cpSync(join(packageRoot, 'binding.gyp'), join(root, 'binding.gyp'));
    writeFileSync(source(), answer(4));
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [nodeGyp, 'rebuild', `--nodedir=${join(root, 'headers')}`],
      {
        encoding: 'utf8',
        cwd: root,
        env: { ...process.env, NODE_OPTIONS: '' },
      },
    );
    expect({ status, output: stdout + stderr }).toMatchObject({
      status: 0,
      output: expect.stringContaining('archer-native: built in'),
    });
    const value = spawnSync(process.execPath, ['-p', `require(${JSON.stringify(addon())}).answer`], {
      encoding: 'utf8',
    });
    expect(value.stdout).toBe('4\n');
    expect(build().stderr).toBe('archer-native: the addon is up to date.\n');
  },
);

test("a compiler's failure shows its message and the log, and the next build goes on", () => {
  writeFileSync(source(), answer(3).replace('#include <string>', '#include "no_such_header.h"'));
  const failed = build();
  expect(failed.status).toBe(1);
  expect(failed.stderr).toContain('no_such_header.h: No such file or directory');
  expect(failed.stderr).toContain(`The whole output is in ${join(root, 'native', 'build', 'build.log')}`);
  writeFileSync(source(), answer(3));
  expect(build()).toMatchObject({ status: 0, stderr: expect.stringContaining('built in') });
});

test('the install hook never fails, and says what to run', () => {
  writeFileSync(source(), 'this does not compile');
  const install = (env: Record<string, string>) =>
    spawnSync(process.execPath, [join(root, 'scripts', 'install.mjs')], {
      encoding: 'utf8',
      env: { ...process.env, NODE_OPTIONS: '', ...env },
    });
  const failed = install({});
  expect(failed.status).toBe(0);
  expect(failed.stderr).toMatch(/the addon was not built: compiling failed[\s\S]*npx archer-native setup/);
  const skipped = install({ ARCHER_SKIP_BUILD: '1' });
  expect(skipped).toMatchObject({ status: 0, stderr: expect.stringMatching(/^archer-native: ARCHER_SKIP_BUILD=1/) });
});
