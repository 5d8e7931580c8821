// The libtorch resolver against temporary folders, a stand-in for python3 and a server on 127.0.0.1.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import {
  type LibtorchSpec,
  libtorchVersion,
  neededMembers,
  readSpec,
  resolveLibtorch,
  versionFault,
} from '../../scripts/libtorch.mjs';

const wheelName = 'torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl';
const here = `${process.platform}-${process.arch}`;
let shared: string;
let wheel: Buffer;
let sha256: string;
let folder: string;
let env: Record<string, string>;
let spec: LibtorchSpec;
let said: string[];
let server: Server;
let requests: IncomingMessage[];
let answer: (request: IncomingMessage, response: ServerResponse) => void;

const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const cache = () => join(folder, 'cache', 'archer-native');
const resolve = (options = {}) => resolveLibtorch({ env, spec, say: (line) => said.push(line), ...options });

function write(path: string, text: string): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, text);
}

/** What a PyTorch looks like from outside. */
function makeTorch(root: string, version = '2.13.0+cpu'): void {
  write(join(root, 'lib', 'libtorch_cpu.so'), 'not really');
  write(join(root, 'lib', 'libtorch.so'), 'not really');
  write(join(root, 'lib', 'libgomp.so.1'), 'not really');
  write(join(root, 'include', 'torch', 'headeronly', 'version.h'), '// nothing');
  write(join(root, 'version.py'), `__version__ = '${version}'\n`);
}

function zip(name: string, from: string): Buffer {
  const path = join(shared, name);
  execFileSync('cmake', ['-E', 'tar', 'cf', path, '--format=zip', ...readdirSync(from)], { cwd: from });
  return readFileSync(path);
}

/** A python3 that has no torch and runs `script` as `pip download` ($dest is its --dest). */
function fakePython(script: string, torchOrigin = ''): void {
  write(
    join(folder, 'bin', 'python3'),
    `#!/bin/sh\nif [ "$1" = -c ]; then echo "${torchOrigin}"; exit 0; fi\n` +
      `echo "$PIP_RETRIES $*" >> ${folder}/pip-calls\nfor arg; do dest=$arg; done\n${script}\n`,
  );
  chmodSync(join(folder, 'bin', 'python3'), 0o755);
}

beforeAll(async () => {
  shared = mkdtempSync(join(tmpdir(), 'archer-libtorch-'));
  const source = join(shared, 'wheel');
  makeTorch(join(source, 'torch'));
  write(join(source, 'torch', 'lib', 'libtorch_python.so'), 'not needed');
  write(join(source, 'torch', 'nn', 'modules.py'), 'not needed');
  write(join(source, 'torch', 'include', 'ATen', 'big.h'), 'x'.repeat(400_000) + Math.random());
  wheel = zip('fake.zip', source);
  sha256 = sha(wheel);
  server = createServer((request, response) => {
    requests.push(request);
    answer(request, response);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});

afterAll(async () => {
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  rmSync(shared, { recursive: true, force: true });
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'archer-libtorch-'));
  env = { PATH: `${join(folder, 'bin')}:${process.env.PATH}`, HOME: folder, XDG_CACHE_HOME: join(folder, 'cache') };
  said = [];
  requests = [];
  answer = (_, response) => response.end(wheel);
  fakePython('echo "ERROR: No matching distribution found for torch==2.13.0+cpu"; exit 1');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${encodeURIComponent(wheelName)}`;
  const pinned = {
    file: wheelName,
    python: '3.11',
    platform: 'manylinux_2_28_x86_64',
    bytes: wheel.length,
    sha256,
    url,
  };
  spec = { ...readSpec(), unpackedBytes: 1e6, wheels: { [here]: pinned } };
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Nothing but finished folders may stay in the cache. */
function expectCleanCache(entries: string[] = []): void {
  expect(existsSync(cache()) ? readdirSync(cache()) : []).toEqual(entries);
}

describe('the pinned archive', () => {
  test('cmake/libtorch.json names one wheel of one version', () => {
    const { version, label, wheels, supported } = readSpec();
    const pinned = wheels['linux-x64']!;
    expect(pinned.file).toContain(`torch-${version}+${label}-cp311`);
    expect(decodeURIComponent(pinned.url).endsWith(`/${pinned.file}`)).toBe(true);
    expect(pinned.sha256).toMatch(/^[0-9a-f]{64}$/);
    expect(versionFault(`${version}+${label}`, { ...readSpec(), supported })).toBe('');
  });

  test('versions 2.11 to 2.14 are supported', () => {
    for (const version of ['2.11.0', '2.12.1+cu130', '2.14.9', '2.14.0a0+git123'])
      expect(versionFault(version, spec)).toBe('');
    for (const version of ['2.10.2', '2.15.0', '1.13.1', '3.0.0', ''])
      expect(versionFault(version, spec)).toContain('2.11 to 2.14');
  });

  test('only what compiling and running need is unpacked, whatever the folder is called', () => {
    const inner = [
      'lib/libtorch_cpu.so',
      'lib/libc10.so',
      'lib/libgomp-a34b.so.1',
      'lib/libtorch_python.so',
      'lib/libx.a',
      'build-version',
    ];
    const names = [...inner, 'include/ATen/ATen.h', 'bin/protoc', 'share/x', 'include/'].map(
      (name) => `libtorch/${name}`,
    );
    expect(neededMembers(names, spec)).toEqual({
      prefix: 'libtorch/',
      members: [
        'lib/libtorch_cpu.so',
        'lib/libc10.so',
        'lib/libgomp-a34b.so.1',
        'build-version',
        'include/ATen/ATen.h',
      ].map((name) => `libtorch/${name}`),
    });
    expect(neededMembers(['a/b'], spec)).toBeUndefined();
  });
});

describe('ARCHER_LIBTORCH', () => {
  test('takes the folder or its parent', async () => {
    makeTorch(join(folder, 'site-packages', 'torch'), '2.12.0+cu130');
    const root = join(folder, 'site-packages', 'torch');
    for (const path of [root, join(folder, 'site-packages')]) {
      env.ARCHER_LIBTORCH = path;
      expect(await resolve()).toEqual({ root, version: '2.12.0+cu130', source: 'ARCHER_LIBTORCH' });
    }
    delete env.ARCHER_LIBTORCH;
    env.LIBTORCH = root;
    expect(await resolve()).toMatchObject({ root, source: 'LIBTORCH' });
  });

  test('a wrong one is an error that names what is missing, with no fallback', async () => {
    makeTorch(join(folder, 'torch'));
    rmSync(join(folder, 'torch', 'include'), { recursive: true });
    env.ARCHER_LIBTORCH = join(folder, 'torch');
    await expect(resolve()).rejects.toThrow(/ARCHER_LIBTORCH=.*holds no include\/torch\. /);
    env.ARCHER_LIBTORCH = join(folder, 'nowhere');
    await expect(resolve()).rejects.toThrow(/holds no lib\/libtorch_cpu\.so and no include\/torch/);
    expect(requests).toHaveLength(0);
  });

  test('an unsupported version is refused unless the bypass is set', async () => {
    makeTorch(join(folder, 'torch'), '2.9.1');
    env.ARCHER_LIBTORCH = join(folder, 'torch');
    await expect(resolve()).rejects.toThrow(
      /it is version 2\.9\.1; supported are 2\.11 to 2\.14.*ARCHER_LIBTORCH_ANY_VERSION=1/,
    );
    env.ARCHER_LIBTORCH_ANY_VERSION = '1';
    expect(await resolve()).toMatchObject({ version: '2.9.1' });
  });

  test('the version is read from version.py, build-version or the headers', () => {
    const root = join(folder, 'torch');
    const defines = ['MAJOR 2', 'MINOR 13', 'PATCH 1'].map((part) => `#define TORCH_VERSION_${part}\n`).join('');
    write(join(root, 'include', 'torch', 'headeronly', 'version.h'), defines);
    expect(libtorchVersion(root)).toBe('2.13.1');
    write(join(root, 'build-version'), '2.13.2+cpu\n');
    expect(libtorchVersion(root)).toBe('2.13.2+cpu');
    write(join(root, 'version.py'), "from typing import Optional\n__version__ = '2.13.3'\n");
    expect(libtorchVersion(root)).toBe('2.13.3');
  });
});

describe('cache and python3', () => {
  const cached = () => join(cache(), 'libtorch-2.13.0-cpu');

  test('a cached libtorch counts once its stamp with the right hash is there', async () => {
    makeTorch(join(cached(), 'torch'));
    expect(await resolve({ fetch: false })).toBeUndefined();
    write(join(cached(), '.complete'), JSON.stringify({ version: '2.13.0+cpu', sha256: '0'.repeat(64) }));
    expect(await resolve({ fetch: false })).toBeUndefined();
    write(join(cached(), '.complete'), JSON.stringify({ version: '2.13.0+cpu', sha256 }));
    expect(await resolve({ fetch: false })).toEqual({
      root: join(cached(), 'torch'),
      version: '2.13.0+cpu',
      source: 'cache',
    });
    rmSync(join(cached(), 'torch', 'lib', 'libtorch_cpu.so'));
    expect(await resolve({ fetch: false })).toBeUndefined();
  });

  test('half a folder in the way is replaced', async () => {
    makeTorch(join(cached(), 'torch'));
    expect(await resolve()).toMatchObject({ source: 'fetched' });
    expectCleanCache(['libtorch-2.13.0-cpu']);
  });

  test("python3's PyTorch is taken when its version is supported, else passed over with a word", async () => {
    const root = join(folder, 'site-packages', 'torch');
    makeTorch(root, '2.12.0+cu130');
    fakePython('exit 1', join(root, '__init__.py'));
    expect(await resolve()).toEqual({ root, version: '2.12.0+cu130', source: 'python' });
    makeTorch(root, '2.4.0');
    expect(await resolve()).toMatchObject({ source: 'fetched' });
    expect(said.join('\n')).toMatch(/it is version 2\.4\.0; supported are/);
  });
});

describe('fetching', () => {
  const root = () => join(cache(), 'libtorch-2.13.0-cpu', 'torch');

  test('by pip: the exact local label, no retries, no server asked', async () => {
    write(join(folder, 'index', wheelName), '');
    writeFileSync(join(folder, 'index', wheelName), wheel);
    fakePython(`cp ${folder}/index/*.whl "$dest"`);
    expect(await resolve()).toEqual({ root: root(), version: '2.13.0+cpu', source: 'fetched' });
    const calls = readFileSync(join(folder, 'pip-calls'), 'utf8');
    expect(calls).toMatch(
      /^0 -m pip download --no-deps .*torch==2\.13\.0\+cpu .*--python-version 3\.11 --platform manylinux_2_28_x86_64/,
    );
    expect(requests).toHaveLength(0);
    expectCleanCache(['libtorch-2.13.0-cpu']);
  });

  test('by URL where pip has none: only the needed members, and from the cache the next time', async () => {
    expect(await resolve()).toEqual({ root: root(), version: '2.13.0+cpu', source: 'fetched' });
    expect(said.join('\n')).toContain('No matching distribution');
    expect(readdirSync(root()).sort()).toEqual(['include', 'lib', 'version.py']);
    expect(readdirSync(join(root(), 'lib')).sort()).toEqual(['libgomp.so.1', 'libtorch.so', 'libtorch_cpu.so']);
    expect(await resolve()).toEqual({ root: root(), version: '2.13.0+cpu', source: 'cache' });
    expect(requests).toHaveLength(1);
    expectCleanCache(['libtorch-2.13.0-cpu']);
  });

  test('without python3 or pip the URL is used', async () => {
    fakePython('echo "/usr/bin/python3: No module named pip" >&2; exit 1');
    expect(await resolve()).toMatchObject({ source: 'fetched' });
    expect(said.join('\n')).toContain('No module named pip');
  });

  test('a wrong hash names both and leaves nothing', async () => {
    const other = Buffer.concat([wheel, Buffer.from('!')]);
    answer = (_, response) => response.end(other);
    await expect(resolve()).rejects.toThrow(new RegExp(`SHA-256 ${sha(other)}, expected ${sha256}`));
    expectCleanCache();
  });

  test('a 404 is reported beside what pip said, with the remedies', async () => {
    answer = (_, response) => response.writeHead(404).end();
    await expect(resolve()).rejects.toThrow(
      /could not be fetched \(pip: No matching distribution.*; http:.*: the server answered 404 Not Found\).*ARCHER_LIBTORCH_URL.*ARCHER_LIBTORCH /,
    );
    expect(requests).toHaveLength(1);
    expectCleanCache();
  });

  test('nothing listening is reported with the reason', async () => {
    spec.wheels[here]!.url = 'http://127.0.0.1:1/torch.whl';
    await expect(resolve()).rejects.toThrow(/127\.0\.0\.1:1\/torch\.whl: (ECONNREFUSED|bad port)/);
  });

  function cutAfterHalf(request: IncomingMessage, response: ServerResponse): void {
    const begin = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const rest = wheel.subarray(begin);
    response.writeHead(begin > 0 ? 206 : 200, { 'content-length': rest.length });
    response.write(rest.subarray(0, Math.ceil(rest.length / 2)), () => setTimeout(() => response.destroy(), 20));
  }

  test('a connection that always breaks is given up after three attempts', async () => {
    answer = cutAfterHalf;
    await expect(resolve()).rejects.toThrow(new RegExp(`the connection broke at \\d+ of ${wheel.length} bytes`));
    expect(requests).toHaveLength(3);
    expectCleanCache();
  });

  test('a connection that broke once is taken up where it stopped', async () => {
    answer = (request, response) => {
      if (requests.length === 1) return cutAfterHalf(request, response);
      const begin = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1]);
      response.writeHead(206, { 'content-length': wheel.length - begin }).end(wheel.subarray(begin));
    };
    expect(await resolve()).toMatchObject({ source: 'fetched' });
    expect(requests).toHaveLength(2);
  });

  test('two at once end in one folder', async () => {
    const [first, second] = await Promise.all([resolve(), resolve()]);
    expect(first).toEqual(second);
    expect(existsSync(join(root(), 'lib', 'libtorch_cpu.so'))).toBe(true);
    expectCleanCache(['libtorch-2.13.0-cpu']);
  });

  test('an archive without libtorch, and one that is none, are refused', async () => {
    const without = join(shared, 'without');
    write(join(without, 'torch', 'version.py'), '');
    for (const [archive, message] of [
      [zip('without.zip', without), /is no libtorch: lib\/libtorch_cpu\.so is not in it/],
      [Buffer.from('<html>sign in first</html>'), /is no libtorch: it cannot be read as a zip file/],
    ] as const) {
      answer = (_, response) => response.end(archive);
      spec.wheels[here]!.sha256 = sha(archive);
      spec.wheels[here]!.bytes = archive.length;
      await expect(resolve()).rejects.toThrow(message);
      expectCleanCache();
    }
  });

  test('too small a disk is said beforehand', async () => {
    spec.unpackedBytes = 1e18;
    await expect(resolve()).rejects.toThrow(
      /libtorch needs \d+\.\d GB in .* free\. Make room, or name another cache folder/,
    );
    expect(requests).toHaveLength(0);
    expectCleanCache();
  });

  test('a cache folder that cannot be made is named', async () => {
    write(join(folder, 'file'), '');
    env.XDG_CACHE_HOME = join(folder, 'file');
    await expect(resolve()).rejects.toThrow(/cannot be made \(ENOTDIR\)\. Set XDG_CACHE_HOME/);
  });

  test('a platform without a wheel is told what to do', async () => {
    spec.wheels = {};
    await expect(resolve()).rejects.toThrow(/no libtorch to fetch for .*Install PyTorch 2\.13\.0 for python3/);
  });
});

describe('ARCHER_LIBTORCH_URL', () => {
  beforeEach(() => {
    env.ARCHER_LIBTORCH_URL = spec.wheels[here]!.url.replace(/[^/]+$/, 'mirror/libtorch.zip');
  });

  test('needs a hash or an explicit skip', async () => {
    await expect(resolve()).rejects.toThrow(/ARCHER_LIBTORCH_URL needs ARCHER_LIBTORCH_SHA256/);
    env.ARCHER_LIBTORCH_SHA256 = 'abc';
    await expect(resolve()).rejects.toThrow(/"abc" is not 64 hexadecimal/);
    env.ARCHER_LIBTORCH_SHA256 = 'skip';
    expect(await resolve()).toMatchObject({ source: 'fetched', version: '2.13.0+cpu' });
    expect(requests[0]!.url).toBe('/mirror/libtorch.zip');
    expect(existsSync(join(folder, 'pip-calls'))).toBe(false);
  });

  test("goes before python3's, and has a cache folder of its own", async () => {
    makeTorch(join(folder, 'site-packages', 'torch'));
    fakePython('exit 1', join(folder, 'site-packages', 'torch', '__init__.py'));
    env.ARCHER_LIBTORCH_SHA256 = sha256;
    spec.wheels[here]!.sha256 = 'f'.repeat(64);
    const name = `libtorch-${sha256.slice(0, 12)}`;
    expect(await resolve()).toMatchObject({ root: join(cache(), name, 'torch'), source: 'fetched' });
    expect(await resolve()).toMatchObject({ root: join(cache(), name, 'torch'), source: 'cache' });
    expectCleanCache([name]);
  });

  test('a mirror of the pinned wheel shares its cache folder', async () => {
    env.ARCHER_LIBTORCH_SHA256 = sha256.toUpperCase();
    expect(await resolve()).toMatchObject({ root: join(cache(), 'libtorch-2.13.0-cpu', 'torch') });
  });

  test('a wrong hash is the variable to correct', async () => {
    env.ARCHER_LIBTORCH_SHA256 = '0'.repeat(64);
    await expect(resolve()).rejects.toThrow(/expected 0{64}: .*correct ARCHER_LIBTORCH_SHA256/);
  });

  test('something that is no URL is named', async () => {
    env.ARCHER_LIBTORCH_URL = 'libtorch.zip';
    env.ARCHER_LIBTORCH_SHA256 = 'skip';
    await expect(resolve()).rejects.toThrow(/ARCHER_LIBTORCH_URL=libtorch\.zip is not a URL/);
  });
});
