// `pull` against a server of our own that speaks the hub's protocol, faults included; the cache against huggingface_hub's.
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type PullOptions, pull } from '../../lib/hub/pull.js';
import { resolveDataPath, resolveModelPath } from '../../lib/hub/resolve.js';
import { hubSettings } from '../../lib/hub/settings.js';
import { commit, type FakeFile, FakeHub, hashOf } from './fake-hub.js';
import { pythonWith, runPython } from './python.js';

const weights = Buffer.from(Uint8Array.from({ length: 300_000 }, (_, i) => (i * i) % 251));
const model: FakeFile[] = [
  { path: 'config.json', content: Buffer.from('{"model_type":"llama"}') },
  { path: 'tokenizer.json', content: Buffer.from('{}') },
  { path: 'model.safetensors', content: weights, large: true },
  { path: 'pytorch_model.bin', content: Buffer.from('pickle'), large: true },
  { path: 'onnx/model.onnx', content: Buffer.from('onnx'), large: true },
  { path: 'original/deep/params & more.json', content: Buffer.from('') },
];

let cacheDir: string;
let hub: FakeHub;

beforeEach(async () => {
  cacheDir = mkdtempSync(join(tmpdir(), 'archer-hub-'));
  hub = await new FakeHub(model).start();
});

afterEach(async () => {
  await hub.stop();
  rmSync(cacheDir, { recursive: true });
});

function get(options: Partial<PullOptions> = {}, settings: Partial<PullOptions['settings']> = {}) {
  return pull({
    name: 'owner/name',
    type: 'model',
    settings: { endpoint: hub.endpoint, cacheDir, isOffline: false, ...settings },
    pauseMs: 1,
    ...options,
  });
}

async function failure(work: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error = await work.then(
    () => undefined,
    (one: { code: string; message: string }) => one,
  );
  return { code: String(error?.code), message: String(error?.message) };
}

const repoFolder = () => join(cacheDir, 'models--owner--name');
const blob = (file: FakeFile) => join(repoFolder(), 'blobs', hashOf(file));
const large = model[2]!;

describe('a model', () => {
  test('lies in the cache as Python lays it out: blobs by hash, relative links, the ref', async () => {
    const { folder, files } = await get();
    expect(folder).toBe(join(repoFolder(), 'snapshots', commit));
    expect(files).toEqual([
      { path: 'config.json', bytes: 22, cached: false },
      { path: 'tokenizer.json', bytes: 2, cached: false },
      { path: 'model.safetensors', bytes: 300_000, cached: false },
    ]);
    expect(readdirSync(folder).sort()).toEqual(['config.json', 'model.safetensors', 'tokenizer.json']);
    expect(readlinkSync(join(folder, 'model.safetensors'))).toBe(`../../blobs/${hashOf(large)}`);
    expect(readFileSync(join(folder, 'model.safetensors')).equals(weights)).toBe(true);
    expect(readFileSync(join(repoFolder(), 'refs/main'), 'utf8')).toBe(commit);
    expect(readdirSync(join(repoFolder(), 'blobs')).sort()).toEqual(model.slice(0, 3).map(hashOf).sort());
  });

  test('is asked for once: the second pull reads lists alone', async () => {
    await get();
    const before = hub.requests.length;
    const { files } = await get();
    expect(files.every(({ cached }) => cached)).toBe(true);
    expect(hub.requests.slice(before).filter(({ url }) => !url.startsWith('/api/'))).toEqual([]);
  });

  test('include and exclude take files by glob, below folders too', async () => {
    const { files, folder } = await get({ include: ['*.json', 'onnx/'], exclude: ['tok*'] });
    expect(files.map(({ path }) => path)).toEqual([
      'config.json',
      'onnx/model.onnx',
      'original/deep/params & more.json',
    ]);
    expect(readlinkSync(join(folder, 'original/deep/params & more.json'))).toMatch(
      /^\.\.\/\.\.\/\.\.\/\.\.\/blobs\/[0-9a-f]{40}$/,
    );
  });

  test('a file that the filter leaves out is named when nothing fits', async () => {
    expect((await failure(get({ include: ['*.gguf'] }))).message).toMatch(
      /no file that fits; it has config.json, .*--include/,
    );
    hub.files.splice(2, 1);
    try {
      expect(await failure(get())).toMatchObject({
        code: 'ARCHER_E_CONFIG',
        message: expect.stringMatching(/no model.safetensors/),
      });
    } finally {
      hub.files.splice(2, 0, large);
    }
  });

  test('progress ends at the sum, and counts what came', async () => {
    let last = { bytes: 0, totalBytes: 0, received: 0 };
    await get({
      onProgress: (progress) => {
        last = progress;
      },
    });
    expect(last).toEqual({ bytes: 300_024, totalBytes: 300_024, received: 300_024 });
  });

  test('a tag and a pull request have refs of their own; a commit has none', async () => {
    await get({ revision: 'v1.0' });
    await get({ revision: 'refs/pr/1' });
    await get({ revision: commit });
    expect(readFileSync(join(repoFolder(), 'refs/v1.0'), 'utf8')).toBe(commit);
    expect(readFileSync(join(repoFolder(), 'refs/refs/pr/1'), 'utf8')).toBe(commit);
    expect(readdirSync(join(repoFolder(), 'refs')).sort()).toEqual(['refs', 'v1.0']);
    expect((await failure(get({ revision: 'v9' }))).message).toMatch(/no such revision/);
  });
});

describe('what goes wrong on the way', () => {
  test('a cut connection goes on with a range where it stopped', async () => {
    hub.fault = ({ path, count }) => (path === large.path && count < 3 ? { cut: 100_000 } : undefined);
    const { folder } = await get();
    expect(readFileSync(join(folder, large.path)).equals(weights)).toBe(true);
    const ranges = hub
      .reads(large.path)
      .filter(({ isCdn }) => isCdn)
      .map(({ headers }) => headers.range);
    expect(ranges).toEqual([undefined, 'bytes=100000-', 'bytes=200000-']);
  });

  test('the next run goes on with what the last one left', async () => {
    hub.fault = ({ path }) => (path === large.path ? { cut: 0 } : undefined);
    await get({ include: ['config.json'] });
    writeFileSync(`${blob(large)}.incomplete`, weights.subarray(0, 123_456));
    expect(await failure(get())).toMatchObject({
      code: 'ARCHER_E_HUB',
      message: expect.stringMatching(/tried 6 times.*goes on/),
    });
    hub.fault = () => undefined;
    let received = 0;
    const { folder } = await get({
      onProgress: (progress) => {
        received = progress.received;
      },
    });
    expect(readFileSync(join(folder, large.path)).equals(weights)).toBe(true);
    expect(received).toBe(300_000 - 123_456);
    expect(readdirSync(join(repoFolder(), 'blobs')).filter((name) => name.endsWith('.incomplete'))).toEqual([]);
  });

  test('a server without ranges begins anew', async () => {
    hub.ignoresRanges = true;
    hub.fault = ({ path, count }) => (path === large.path && count === 1 ? { cut: 100_000 } : undefined);
    const { folder } = await get();
    expect(readFileSync(join(folder, large.path)).equals(weights)).toBe(true);
  });

  test('wrong bytes are refused and not kept; wrong remains of an earlier run are replaced', async () => {
    const wrong = Buffer.from(weights);
    wrong[7] = wrong[7]! ^ 1;
    hub.fault = ({ path }) => (path === large.path ? { body: wrong } : undefined);
    const error = await failure(get());
    expect(error).toMatchObject({
      code: 'ARCHER_E_HUB',
      message: expect.stringContaining(`the hub says ${hashOf(large)}`),
    });
    expect(existsSync(blob(large)) || existsSync(`${blob(large)}.incomplete`)).toBe(false);
    expect(existsSync(join(repoFolder(), 'refs'))).toBe(false);

    hub.fault = () => undefined;
    writeFileSync(`${blob(large)}.incomplete`, wrong.subarray(0, 1000));
    const { folder } = await get();
    expect(readFileSync(join(folder, large.path)).equals(weights)).toBe(true);
  });

  test('a small file is held against its git hash', async () => {
    hub.fault = ({ path }) => (path === 'config.json' ? { body: Buffer.from('{"model_type":"qwen2"}') } : undefined);
    expect((await failure(get())).message).toMatch(/^config.json has the hash [0-9a-f]{40}, the hub says/);
  });

  test('429 with Retry-After and 503 are waited for', async () => {
    hub.fault = ({ path, count, response }) => {
      if (path !== large.path || count > 2) return undefined;
      response.writeHead(count === 1 ? 429 : 503, count === 1 ? { 'retry-after': '1' } : {}).end();
      return 'answered';
    };
    const waits: number[] = [];
    await get({ onWait: (_, ms) => waits.push(ms) });
    expect(waits).toEqual([1000, 2]);
  });

  test('the hub’s own ratelimit header is understood, and the wait is told', async () => {
    let told: [string, number] | undefined;
    const abort = new AbortController();
    hub.guard = (_, response) => {
      response.writeHead(429, { ratelimit: '"api";r=0;t=55' }).end();
      return true;
    };
    const onWait = (...words: [string, number]) => {
      told = words;
      abort.abort();
    };
    expect((await failure(get({ onWait, signal: abort.signal }))).code).toBe('ARCHER_E_ABORTED');
    expect(told).toEqual([expect.stringMatching(/answers 429$/), 55_000]);
  });

  test('a signed link that has run out is fetched anew', async () => {
    hub.fault = ({ path, count, response }) => {
      if (path !== large.path || count > 1) return undefined;
      response.writeHead(403).end();
      return 'answered';
    };
    expect((await get()).files.length).toBe(3);
    expect(hub.reads(large.path).length).toBe(4);
  });

  test('a disk without room is found before anything is read', async () => {
    const huge = await new FakeHub([
      { path: 'model.safetensors', content: weights, large: true, claims: 2 ** 52 },
    ]).start();
    try {
      const error = await failure(get({}, { endpoint: huge.endpoint }));
      expect(error).toMatchObject({
        code: 'ARCHER_E_IO',
        message: expect.stringMatching(/4503599.63 GB are missing .* HF_HUB_CACHE/),
      });
      expect(huge.reads(large.path)).toEqual([]);
    } finally {
      await huge.stop();
    }
  });

  test('a wait of an hour is an error', async () => {
    hub.guard = (_, response) => {
      response.writeHead(429, { 'retry-after': '3600' }).end();
      return true;
    };
    expect((await failure(get())).message).toMatch(/answers 429 \(the server asks to wait 60 minutes\)/);
  });

  test('a silent connection is given up and tried again', async () => {
    hub.fault = ({ path, count, response }) => {
      if (path !== large.path || count > 1) return undefined;
      response.writeHead(200, { 'content-length': 300_000 }).write(weights.subarray(0, 5000));
      return 'answered';
    };
    const { folder } = await get({ idleMs: 200 });
    expect(readFileSync(join(folder, large.path)).equals(weights)).toBe(true);
  });

  test('an interruption keeps what came and leaves no snapshot', async () => {
    const abort = new AbortController();
    hub.fault = ({ path, response }) => {
      if (path !== large.path) return undefined;
      response.writeHead(200, { 'content-length': 300_000 }).write(weights.subarray(0, 50_000));
      return 'answered';
    };
    const onProgress = ({ bytes }: { bytes: number }) => bytes >= 50_000 && abort.abort();
    expect((await failure(get({ signal: abort.signal, onProgress }))).code).toBe('ARCHER_E_ABORTED');
    expect(statSync(`${blob(large)}.incomplete`).size).toBeGreaterThan(0);
    expect(existsSync(join(repoFolder(), 'snapshots'))).toBe(false);
  });

  test('a hub that is not there', async () => {
    const { endpoint } = hub;
    await hub.stop();
    expect(await failure(get({}, { endpoint }))).toMatchObject({
      code: 'ARCHER_E_HUB',
      message: expect.stringMatching(/cannot be reached.*HF_ENDPOINT.*HF_HUB_OFFLINE/),
    });
    hub = await new FakeHub(model).start();
  });

  test.each([['../evil'], ['/etc/evil'], ['a//b'], ['a\\b']])(
    'a path that leaves the folder is refused: %s',
    async (path) => {
      const evil = await new FakeHub([{ path, content: Buffer.from('x') }]).start();
      try {
        expect((await failure(get({ include: ['*'] }, { endpoint: evil.endpoint }))).message).toMatch(
          /answers with the file/,
        );
      } finally {
        await evil.stop();
      }
    },
  );
});

describe('access', () => {
  test('the token goes to the hub and not to the host that it redirects to', async () => {
    await get({}, { token: 'hf_secret' });
    expect(hub.requests.length).toBeGreaterThan(5);
    for (const { headers, isCdn } of hub.requests)
      expect(headers.authorization).toBe(isCdn ? undefined : 'Bearer hf_secret');
    expect(hub.requests.some(({ isCdn }) => isCdn)).toBe(true);
  });

  test.each([
    [
      403,
      'GatedRepo',
      undefined,
      /is gated, and you are not signed in: accept its licence at http.*owner\/name and set HF_TOKEN/,
    ],
    [403, 'GatedRepo', 'hf_x', /the account of your token has no access: accept its licence/],
    [401, 'RepoNotFound', undefined, /does not exist, or it is private.*--dataset.*HF_TOKEN/],
    [401, undefined, 'hf_x', /your token \(HF_TOKEN\) may not see it/],
    [404, 'RepoNotFound', 'hf_x', /has no owner\/name .*a data set needs --dataset/],
    [418, undefined, undefined, /answers 418/],
  ])('%i %s', async (status, code, token, message) => {
    hub.guard = (_, response) => {
      response.writeHead(status, code ? { 'x-error-code': code } : {}).end();
      return true;
    };
    expect(await failure(get({}, { token }))).toEqual({
      code: 'ARCHER_E_HUB',
      message: expect.stringMatching(message),
    });
    expect(hub.requests.length).toBe(1);
  });

  test('a name that is none', async () => {
    for (const name of ['name', 'a/b/c', '../x', 'a/..', 'a--b/c']) {
      expect(await failure(get({ name }))).toMatchObject({ code: 'ARCHER_E_CONFIG' });
    }
    expect(await failure(get({ revision: '../main' }))).toMatchObject({ code: 'ARCHER_E_CONFIG' });
    expect(hub.requests).toEqual([]);
  });

  test('offline: the cache answers, or an error', async () => {
    expect((await failure(get({}, { isOffline: true }))).message).toMatch(
      /HF_HUB_OFFLINE is set and owner\/name \(main\) is not in the cache/,
    );
    const { folder } = await get();
    const before = hub.requests.length;
    expect(await get({}, { isOffline: true })).toEqual({ folder, commit, files: [] });
    expect(hub.requests.length).toBe(before);
  });
});

describe('names of the hub in place of paths', () => {
  const { HF_HUB_CACHE: before } = process.env;
  beforeEach(() => {
    process.env.HF_HUB_CACHE = cacheDir;
  });
  afterEach(() => {
    if (before === undefined) delete process.env.HF_HUB_CACHE;
    else process.env.HF_HUB_CACHE = before;
  });

  test('a model resolves to its snapshot, else the command is named', async () => {
    expect(() => resolveModelPath('owner/name')).toThrow(/fetch it: archer-native pull owner\/name$/);
    const { folder } = await get();
    expect(resolveModelPath('owner/name')).toBe(folder);
    expect(resolveModelPath('./owner/name')).toBe('./owner/name');
    expect(resolveModelPath('lib/hub')).toBe('lib/hub');
  });

  test('a data set pulls everything, and its files have hf:// names', async () => {
    const rows: FakeFile[] = [{ path: 'main/train.jsonl', content: Buffer.from('{}\n'), large: true }];
    const datasets = await new FakeHub(rows, { api: '/api/datasets/owner/set', path: '/datasets/owner/set' }).start();
    try {
      const name = 'hf://datasets/owner/set/main/train.jsonl';
      expect(() => resolveDataPath(name)).toThrow(
        /archer-native pull owner\/set --dataset --include 'main\/train.jsonl'$/,
      );
      await get({ name: 'owner/set', type: 'dataset' }, { endpoint: datasets.endpoint });
      expect(readFileSync(resolveDataPath(name), 'utf8')).toBe('{}\n');
      expect(existsSync(join(cacheDir, 'datasets--owner--set/snapshots', commit, 'main/train.jsonl'))).toBe(true);
      expect(resolveDataPath('some/file.jsonl')).toBe('some/file.jsonl');
    } finally {
      await datasets.stop();
    }
  });
});

test('the environment is read as huggingface_hub reads it', () => {
  const home = process.env.HOME ?? '';
  const missing = { HF_TOKEN_PATH: join(cacheDir, 'none') };
  expect(hubSettings({ ...missing })).toEqual({
    endpoint: 'https://huggingface.co',
    token: undefined,
    cacheDir: join(home, '.cache/huggingface/hub'),
    isOffline: false,
  });
  writeFileSync(join(cacheDir, 'token'), 'hf_stored\n');
  expect(hubSettings({ HF_HOME: cacheDir, HF_ENDPOINT: 'http://mirror/', HF_HUB_OFFLINE: '1' })).toEqual({
    endpoint: 'http://mirror',
    token: 'hf_stored',
    cacheDir: join(cacheDir, 'hub'),
    isOffline: true,
  });
  expect(hubSettings({ ...missing, HF_TOKEN: ' hf_a ', HF_HUB_CACHE: '~/x', HF_HUB_OFFLINE: '0' })).toMatchObject({
    token: 'hf_a',
    cacheDir: join(home, 'x'),
    isOffline: false,
  });
});

const python = pythonWith('huggingface_hub');

(python ? describe : describe.skip)('beside Python’s huggingface_hub', () => {
  const environment = () => ({ HF_ENDPOINT: hub.endpoint, HF_HUB_DISABLE_TELEMETRY: '1', HF_HUB_DISABLE_XET: '1' });

  test('it finds what we pulled, offline', async () => {
    const { folder } = await get();
    const script = `
import sys, json, huggingface_hub as h
path = h.snapshot_download("owner/name", cache_dir=sys.argv[1], local_files_only=True)
one = h.hf_hub_download("owner/name", "config.json", cache_dir=sys.argv[1], local_files_only=True)
scan = h.scan_cache_dir(sys.argv[1])
repo, = scan.repos
print(json.dumps([path, one, len(scan.warnings), repo.repo_id, repo.repo_type, sorted(repo.refs), repo.size_on_disk]))`;
    const found = JSON.parse(await runPython(python!, script, [cacheDir], environment()));
    expect(found).toEqual([folder, join(folder, 'config.json'), 0, 'owner/name', 'model', ['main'], 300_024]);
  }, 30_000);

  test('we find what it pulled, and both caches are the same', async () => {
    const theirs = mkdtempSync(join(tmpdir(), 'archer-hub-'));
    try {
      const script = `
import sys, huggingface_hub as h
print(h.snapshot_download("owner/name", cache_dir=sys.argv[1], allow_patterns=["*.json", "model.safetensors"]))`;
      const path = (await runPython(python!, script, [theirs], environment())).trim();
      const before = hub.requests.length;
      const { files } = await get({ include: ['*.json', 'model.safetensors'] }, { cacheDir: theirs });
      expect(files.map(({ cached }) => cached)).toEqual([true, true, true, true]);
      expect(hub.requests.slice(before).every(({ url }) => url.startsWith('/api/'))).toBe(true);
      expect((await get({}, { cacheDir: theirs, isOffline: true })).folder).toBe(path);
      await get({ include: ['*.json', 'model.safetensors'] });
      const layout = (dir: string) =>
        readdirSync(join(dir, 'models--owner--name'), { recursive: true })
          .map(String)
          .filter((name) => /^(blobs|refs|snapshots)\//.test(name))
          .sort();
      expect(layout(cacheDir)).toEqual(layout(theirs));
    } finally {
      rmSync(theirs, { recursive: true });
    }
  }, 30_000);
});
