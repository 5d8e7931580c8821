// `pull` and `import` as commands: a model comes from a hub of our own, and its name then stands for its folder.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { commit, FakeHub } from '../unit/fake-hub.js';
import { writeGgufOf } from '../unit/gguf-writer.js';
import { startCli } from './run-cli.js';

const model = resolve(import.meta.dirname ?? '.', '../../assets/model');
let dir: string;
let hub: FakeHub;
const cli = (args: string[], env: Record<string, string> = {}) =>
  startCli(args, {
    env: { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: join(dir, 'cache'), HF_TOKEN_PATH: join(dir, 'none'), ...env },
  }).done;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'archer-hub-'));
  await writeGgufOf(model, join(dir, 'tiny.gguf'));
  const names = ['config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json'];
  const small = names.map((path) => ({ path, content: readFileSync(join(model, path)) }));
  const large = { path: 'model.safetensors', content: readFileSync(join(model, 'model.safetensors')), large: true };
  const gguf = { path: 'tiny.gguf', content: readFileSync(join(dir, 'tiny.gguf')), large: true };
  hub = await new FakeHub([...small, large, gguf]).start();
});
afterAll(async () => {
  await hub.stop();
  rmSync(dir, { recursive: true });
});

test('a name that is not pulled names the command; after it the name is a model', async () => {
  const plan = ['plan', '--set', 'model.path=owner/name', '--json'];
  const before = await cli(plan);
  expect(before).toMatchObject({ code: 2, stderr: expect.stringMatching(/fetch it: archer-native pull owner\/name/) });
  const pulled = await cli(['pull', 'owner/name']);
  const folder = join(dir, 'cache/models--owner--name/snapshots', commit);
  expect(pulled).toMatchObject({ code: 0, stderr: '' });
  expect(pulled.stdout).toMatch(/ {2}model.safetensors {2}.* MB\n/);
  expect(pulled.stdout.endsWith(`${folder}\n`)).toBe(true);
  expect(await cli(plan)).toMatchObject({ code: 0, stderr: '' });
  const offline = await cli(['pull', 'owner/name', '--json'], { HF_HUB_OFFLINE: '1' });
  expect(JSON.parse(offline.stdout)).toEqual({ repo: 'owner/name', revision: 'main', folder, commit, files: [] });
});

test('a GGUF file is pulled by its name and imported', async () => {
  const pulled = await cli(['pull', 'owner/name', '--include', '*.gguf', '--json']);
  const { folder } = JSON.parse(pulled.stdout);
  const out = join(dir, 'imported');
  const args = ['import', join(folder, 'tiny.gguf'), '--out', out, '--dtype', 'float32'];
  expect(await cli(args)).toEqual({
    code: 0,
    signal: null,
    stdout: `${out}: 2.84 M parameters, float32\n`,
    stderr: '',
  });
  expect(await cli(args)).toMatchObject({ code: 2, stderr: expect.stringMatching(/is not empty/) });
  expect(await cli(['plan', '--set', `model.path=${out}`])).toMatchObject({ code: 0 });
});

test('wrong use is 2, a refusal of the hub is 1, with a code', async () => {
  expect((await cli(['pull', 'name'])).code).toBe(2);
  expect((await cli(['import', 'x.gguf', '--out', join(dir, 'y'), '--dtype', 'int8'])).code).toBe(2);
  const missing = await cli(['pull', 'owner/other', '--json']);
  expect(missing.code).toBe(1);
  expect(JSON.parse(missing.stdout).error).toMatchObject({ code: 'ARCHER_E_HUB' });
});
