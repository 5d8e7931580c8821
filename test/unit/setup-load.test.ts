// The addon's loader: every way in which it can fail ends in one sentence with a code and the command that helps.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import {
  addonPath,
  loadFailure,
  loadNative,
  readBuildRecord,
  registerEngine,
  unregisterEngine,
} from '../../lib/native/load.js';
import type { NativeEngine } from '../../lib/native/types.js';
import { packageRoot } from '../../lib/package-root.js';

let folder: string;
let path: string;

function record(values: object): void {
  const whole = {
    libtorchRoot: join(folder, 'torch'),
    libtorchVersion: '2.13.0+cpu',
    arch: process.arch,
    node: 'v20.19.0',
    ...values,
  };
  writeFileSync(join(folder, 'build', 'archer-build.json'), JSON.stringify(whole));
}

function makeLibtorch(): void {
  mkdirSync(join(folder, 'torch', 'lib'), { recursive: true });
  writeFileSync(join(folder, 'torch', 'lib', 'libtorch_cpu.so'), '');
}

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'archer-load-'));
  path = join(folder, 'build', 'Release', 'archer_native.node');
  mkdirSync(dirname(path), { recursive: true });
});

afterEach(() => {
  delete process.env.ARCHER_NATIVE_PATH;
  rmSync(folder, { recursive: true, force: true });
});

describe('where the addon is', () => {
  test('in native/build, unless ARCHER_NATIVE_PATH names it', () => {
    expect(addonPath()).toBe(join(packageRoot, 'native', 'build', 'Release', 'archer_native.node'));
    process.env.ARCHER_NATIVE_PATH = path;
    expect(addonPath()).toBe(path);
  });

  test('the build record lies beside it', () => {
    expect(readBuildRecord(path)).toBeUndefined();
    record({ archer: '0.1.0' });
    expect(readBuildRecord(path)).toMatchObject({ archer: '0.1.0', libtorchVersion: '2.13.0+cpu' });
  });
});

describe('loading really', () => {
  test('a missing file', () => {
    process.env.ARCHER_NATIVE_PATH = join(folder, 'none.node');
    expect(() => loadNative()).toThrow(
      expect.objectContaining({
        code: 'ARCHER_E_NATIVE_LOAD',
        message: expect.stringContaining('none.node is not there'),
      }),
    );
  });

  test('an unknown instruction set', () => {
    process.env.ARCHER_CPU_ISA = 'avx9';
    try {
      expect(() => loadNative()).toThrow(
        expect.objectContaining({
          code: 'ARCHER_E_CONFIG',
          message: 'ARCHER_CPU_ISA=avx9 is not known; use plain, avx2, avx512, avx512_bf16, amx, or unset it.',
        }),
      );
    } finally {
      delete process.env.ARCHER_CPU_ISA;
    }
  });

  test('a damaged file', () => {
    writeFileSync(path, 'this is no shared object');
    process.env.ARCHER_NATIVE_PATH = path;
    expect(() => loadNative()).toThrow(
      expect.objectContaining({
        code: 'ARCHER_E_NATIVE_LOAD',
        message: expect.stringMatching(/is damaged or was built for another machine\. Run `npx archer-native setup`/),
      }),
    );
  });
});

describe('what the failure says', () => {
  const words = (text: string) => new Error(`${text}\nsecond line`);
  const missing = words('libtorch_cpu.so: cannot open shared object file: No such file or directory');

  test('libtorch has gone', () => {
    record({});
    const error = loadFailure(path, missing);
    expect(error.code).toBe('ARCHER_E_SETUP');
    expect(error.message).toContain(`is gone: ${join(folder, 'torch')} (version 2.13.0+cpu)`);
    expect(error.message).not.toContain('second line');
    expect(error.cause).toBe(missing);
  });

  test('another library is missing', () => {
    makeLibtorch();
    record({});
    const error = loadFailure(path, words('libgomp.so.1: cannot open shared object file: No such file or directory'));
    expect(error.code).toBe('ARCHER_E_NATIVE_LOAD');
    expect(error.message).toMatch(
      /the library libgomp\.so\.1 is missing\. It was built by Node v20\.19\.0 with libtorch 2\.13\.0\+cpu/,
    );
  });

  test('libtorch was exchanged for another version', () => {
    makeLibtorch();
    record({});
    const error = loadFailure(path, words(`${path}: undefined symbol: _ZN2at10TensorBase`));
    expect(error.code).toBe('ARCHER_E_SETUP');
    expect(error.message).toContain('is not the one that the addon was built with (2.13.0+cpu)');
  });

  test('another architecture', () => {
    makeLibtorch();
    record({ arch: 'riscv64' });
    const error = loadFailure(path, words('cannot open'));
    expect(error.message).toContain(`was built for riscv64, and this Node is ${process.arch}`);
  });

  test('anything else keeps the words of the system', () => {
    const error = loadFailure(path, words("version `GLIBC_2.38' not found"));
    expect(error.code).toBe('ARCHER_E_NATIVE_LOAD');
    expect(error.message).toMatch(/cannot be loaded: version `GLIBC_2\.38' not found\. Run `npx archer-native setup`/);
  });
});

describe('engines at exit', () => {
  const engine = (stopped: string[], name: string) =>
    ({ shutdown: () => stopped.push(name) }) as unknown as NativeEngine;

  test('one listener stops every registered engine, and goes with the last one', () => {
    const before = process.listenerCount('exit');
    const stopped: string[] = [];
    const [first, second, third] = ['first', 'second', 'third'].map((name) => engine(stopped, name));
    for (const one of [first, second, third]) registerEngine(one!);
    expect(process.listenerCount('exit')).toBe(before + 1);
    unregisterEngine(second!);
    (process.listeners('exit').at(-1) as (code: number) => void)(0);
    expect(stopped).toEqual(['first', 'third']);
    registerEngine(first!);
    unregisterEngine(first!);
    expect(process.listenerCount('exit')).toBe(before);
  });
});
