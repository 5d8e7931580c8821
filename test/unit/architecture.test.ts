// Who may know whom (ARCHITECTURE.md), held by reading every import and include.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from '@jest/globals';

const root = resolve(import.meta.dirname ?? '.', '../..');

function files(dir: string, pattern: RegExp): string[] {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    if (statSync(path).isDirectory()) return name === 'build' ? [] : files(path, pattern);
    return pattern.test(name) ? [path] : [];
  });
}

// Room -> rooms it may import. `config` for its types is open to all; `errors` too.
const may: Record<string, string[]> = {
  errors: [],
  'package-root': [],
  'io-error': [],
  config: ['native'], // the types of the door alone; held below
  algorithm: ['native'], // likewise
  model: ['native'],
  hub: ['model'], // what `bundled` stands for
  gguf: ['data', 'model', 'native'], // what is written is opened; the types of the door
  native: ['config', 'model'], // model's types, and the loss options of the public loss
  data: ['algorithm'],
  rollout: ['data', 'hub', 'model', 'native'],
  reward: ['data'], // the type of a row
  checkpoint: [],
  metrics: [],
  train: ['algorithm', 'checkpoint', 'config', 'data', 'hub', 'metrics', 'model', 'native', 'reward', 'rollout'],
  // the record of the build, what `bench rollout` samples from, and the trainer of `bench step`
  bench: ['config', 'data', 'metrics', 'model', 'native', 'reward', 'rollout', 'train'],
  evaluation: ['algorithm', 'checkpoint', 'config', 'data', 'metrics', 'reward', 'rollout', 'train'],
  cli: ['bench', 'config', 'data', 'evaluation', 'gguf', 'hub', 'metrics', 'model', 'native', 'reward', 'rollout', 'train', 'checkpoint'],
};
const always = ['errors', 'io-error', 'package-root'];

interface Import {
  from: string;
  to: string;
  file: string;
  isType: boolean;
}

function imports(): Import[] {
  const lib = join(root, 'lib');
  return files(lib, /\.ts$/).flatMap((file) => {
    const text = readFileSync(file, 'utf8');
    const found = text.matchAll(/^(import|export)\s+(type\s+)?[^;]*?from\s+'(\.[^']+)'/gms);
    return [...found].map(([statement, , type, specifier]) => {
      const room = (path: string) => relative(lib, path).split('/')[0]!.replace(/\.(ts|js)$/, '');
      const named = /\{([^}]*)\}/s.exec(statement)?.[1]?.split(',') ?? [];
      const isType = type !== undefined || (named.length > 0 && named.every((name) => /^\s*(type\s|$)/.test(name)));
      return { from: room(file), to: room(resolve(dirname(file), specifier!)), file: relative(root, file), isType };
    });
  });
}

describe('TypeScript rooms', () => {
  const all = imports();

  test('there are imports to hold', () => expect(all.length).toBeGreaterThan(100));

  test('nobody imports a room it may not know', () => {
    const wrong = all.filter(({ from, to }) => from !== 'index' && from !== to && !always.includes(to) && !may[from]?.includes(to));
    expect(wrong.map(({ file, to }) => `${file} -> ${to}`)).toEqual([]);
  });

  test('config, algorithm, model and reward take types alone from beyond', () => {
    const wrong = all.filter(
      ({ from, to, isType }) => ['config', 'algorithm', 'model', 'reward'].includes(from) && from !== to && !always.includes(to) && !isType,
    );
    expect(wrong.map(({ file, to }) => `${file} -> ${to}`)).toEqual([]);
  });

  test('process.env is read by native loading, the hub’s settings and the configuration alone', () => {
    const readers = files(join(root, 'lib'), /\.ts$/).filter((file) => /process\.env/.test(readFileSync(file, 'utf8')));
    expect(readers.map((file) => relative(root, file))).toEqual(['lib/config/environment.ts', 'lib/hub/settings.ts', 'lib/native/load.ts']);
  });
});

// Room -> rooms whose headers it may include.
const mayInclude: Record<string, string[]> = {
  kernels: [],
  core: ['kernels'],
  model: ['core', 'kernels'],
  loss: ['core', 'kernels'],
  head: ['core', 'kernels', 'loss'],
  decode: ['core', 'kernels', 'model'], // ModelConfig alone
  optim: ['core', 'kernels', 'model'], // Parameter
  generate: ['core', 'decode', 'kernels', 'model'],
  train: ['core', 'head', 'loss', 'model', 'optim'],
  bench: ['core', 'kernels', 'loss'],
  binding: ['core', 'generate', 'kernels', 'loss', 'model', 'optim', 'train'],
};

describe('C++ rooms', () => {
  const native = join(root, 'native');
  const sources = files(native, /\.(h|cpp|cu|cuh)$/).map((file) => {
    const includes = [...readFileSync(file, 'utf8').matchAll(/^#include\s+[<"]([^>"]+)[>"]/gm)].map((match) => match[1]!);
    return { file: relative(root, file), room: relative(native, file).split('/')[0]!, includes };
  });

  test('there are sources to hold', () => expect(sources.length).toBeGreaterThan(40));

  test('nobody includes a room it may not know', () => {
    const wrong = sources.flatMap(({ file, room, includes }) =>
      includes
        .filter((path) => Object.hasOwn(mayInclude, path.split('/')[0]!))
        // The formulas per token belong to the loss and are shared with device code.
        .filter((path) => !(room === 'kernels' && path === 'loss/token_math.h'))
        .filter((path) => room !== 'tests' && path.split('/')[0] !== room && !mayInclude[room]?.includes(path.split('/')[0]!))
        .map((path) => `${file} -> ${path}`),
    );
    expect(wrong).toEqual([]);
  });

  test('napi.h in binding alone, the heavy torch headers nowhere, kernels and token_math.h without torch', () => {
    const wrong = sources.flatMap(({ file, room, includes }) =>
      includes
        .filter(
          (path) =>
            (path === 'napi.h' && room !== 'binding') ||
            /^torch\/(torch|all|nn|optim)(\.h|\/)/.test(path) ||
            (/^(ATen|c10|torch)\//.test(path) && (room === 'kernels' || file.endsWith('token_math.h'))),
        )
        .map((path) => `${file} -> ${path}`),
    );
    expect(wrong).toEqual([]);
  });
});
