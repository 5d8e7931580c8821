// Whatever is wrong: one clear sentence with a code, the right exit status, and no earlier checkpoint lost.
import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { root, runCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
beforeAll(() => {
  dir = tempDir();
});
afterAll(() => dir.remove());

const train = (...sets: string[]) =>
  runCli(
    'train',
    ...[
      'num_threads=1',
      'data.train_batch_size=2',
      'actor.ppo_mini_batch_size=2',
      'rollout.n=2',
      'data.max_response_length=16',
      'data.val_files=[]',
      'trainer.total_training_steps=1',
      `trainer.default_local_dir=${dir.path}/runs`,
      ...sets,
    ].flatMap((one) => ['--set', one]),
  );

/** Exit 2, the code, and every word of what must be named. */
async function refuses(sets: string[], code: string, ...words: string[]): Promise<void> {
  const result = await train(...sets);
  expect(result.stderr).toContain(code);
  for (const word of words) expect(result.stderr).toContain(word);
  expect(result.stderr).not.toMatch(/^\s+at /m);
  expect(result.code).toBe(2);
}

function modelCopy(name: string): string {
  const path = join(dir.path, name);
  cpSync(join(root, 'assets/model'), path, { recursive: true });
  return path;
}

function dataFile(name: string, ...lines: string[]): string {
  const path = join(dir.path, name);
  writeFileSync(path, lines.join('\n'));
  return path;
}

const row = (n: number) => JSON.stringify({ prompt: `Compute ${n} + 1.`, answer: String(n + 1) });

describe('configuration', () => {
  test('an unknown key names the nearest', () =>
    refuses(['actor.token_entropy_quantil=0.7'], 'ARCHER_E_CONFIG', 'actor.token_entropy_quantil', 'token_entropy_quantile'));
  test('a wrong type names key, value and range', () =>
    refuses(['rollout.n=many'], 'ARCHER_E_CONFIG', 'rollout.n', 'many', 'integer'));
  test('a value out of range', () => refuses(['actor.token_entropy_quantile=1.5'], 'ARCHER_E_CONFIG', '1.5', '≤ 1'));
  test('G = 1', () => refuses(['rollout.n=1'], 'ARCHER_E_CONFIG', 'rollout.n'));
  test('more prompts a step than there are', () =>
    refuses([`data.train_files=${dataFile('few.jsonl', row(1))}`, 'reward.name=math'], 'ARCHER_E_CONFIG', 'train_batch_size'));
  test('responses beyond the model’s positions', () =>
    refuses(['data.max_response_length=4096'], 'ARCHER_E_CONFIG', 'max_position_embeddings', 'max_response_length'));
  test('a configuration file that is not there', async () => {
    const result = await runCli('train', 'nowhere.yaml');
    expect(result.code).toBe(2);
    expect(result.stderr).toContain('nowhere.yaml');
  });
});

describe('model folder', () => {
  test('a truncated safetensors file', () => {
    const path = modelCopy('truncated');
    truncateSync(join(path, 'model.safetensors'), 100_000);
    return refuses([`model.path=${path}`], 'ARCHER_E_MODEL', 'model.safetensors');
  });
  test('a missing one', () => {
    const path = join(dir.path, 'no-weights');
    mkdirSync(path);
    for (const name of ['config.json', 'tokenizer.json']) cpSync(join(root, 'assets/model', name), join(path, name));
    return refuses([`model.path=${path}`], 'ARCHER_E_MODEL', 'model.safetensors');
  });
  test('a tensor of the wrong shape', () => {
    const path = modelCopy('shape');
    const config = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'));
    writeFileSync(join(path, 'config.json'), JSON.stringify({ ...config, intermediate_size: config.intermediate_size + 64 }));
    return refuses([`model.path=${path}`], 'ARCHER_E_MODEL', 'mlp', String(config.intermediate_size + 64));
  });
  test('a tokenizer that does not fit the vocabulary', () => {
    const path = modelCopy('tokenizer');
    const file = join(path, 'tokenizer.json');
    const tokenizer = JSON.parse(readFileSync(file, 'utf8'));
    tokenizer.added_tokens.push({ ...tokenizer.added_tokens[0], id: 99_999, content: '<|far|>' });
    tokenizer.model.vocab['<|far|>'] = 99_999;
    writeFileSync(file, JSON.stringify(tokenizer));
    return refuses([`model.path=${path}`], 'ARCHER_E_MODEL', '99999', 'vocab_size');
  });
  test('no such folder', () => refuses(['model.path=/no/such/model'], 'ARCHER_E_MODEL', '/no/such/model'));
});

describe('data', () => {
  test('a malformed row names file, line and field', () => {
    const file = dataFile('bad.jsonl', row(1), row(2), '{"prompt": "Compute 3 + 1."}');
    return refuses([`data.train_files=${file}`], 'ARCHER_E_DATA', 'bad.jsonl', '3', 'answer');
  });
  test('a row that is no JSON', () => {
    const file = dataFile('broken.jsonl', row(1), '{"prompt": ');
    return refuses([`data.train_files=${file}`], 'ARCHER_E_DATA', 'broken.jsonl', '2');
  });
  test('an empty data set', () => refuses([`data.train_files=${dataFile('empty.jsonl')}`], 'ARCHER_E_DATA', 'empty.jsonl'));
  test('prompts too long', () => {
    const file = dataFile('long.jsonl', row(1), JSON.stringify({ prompt: 'x'.repeat(2000), answer: '1' }));
    return refuses([`data.train_files=${file}`, 'data.max_prompt_length=64'], 'ARCHER_E_DATA', 'long.jsonl', '64');
  });
});

describe('reward module', () => {
  const module = (name: string, body: string) => `reward.path=${dataFile(name, body)}`;

  test('one without a default function', () => refuses([module('none.mjs', 'export const x = 1;')], 'ARCHER_E_REWARD', 'none.mjs', 'default'));
  test('one that is not there', () => refuses(['reward.path=/no/such/reward.mjs'], 'ARCHER_E_REWARD', '/no/such/reward.mjs'));
  test('one that gives everybody 0 fails the self-test', () =>
    refuses([module('zero.mjs', 'export default () => 0;')], 'ARCHER_E_REWARD', 'self_test'));
  test('one that throws, hangs or gives NaN costs those responses only', async () => {
    const body = `let calls = 0;
      export default ({ response }) => {
        calls += 1;
        if (calls % 4 === 1) throw new Error('broken');
        if (calls % 4 === 2) for (;;);
        return calls % 4 === 3 ? NaN : response.length;
      };`;
    const result = await train(
      module('faulty.mjs', body),
      'reward.self_test=false',
      'reward.timeout_seconds=0.5',
      'reward.workers=1',
      'data.train_batch_size=4',
      'trainer.experiment_name=faulty',
    );
    expect(result.code).toBe(0);
    const [line] = readFileSync(join(dir.path, 'runs/archer-native/faulty/metrics.jsonl'), 'utf8').trim().split('\n');
    const metrics = JSON.parse(line!);
    expect(metrics['reward/crash']).toBeGreaterThan(0);
    expect(metrics['reward/timeout']).toBeGreaterThan(0);
    expect(metrics['reward/crash'] + metrics['reward/timeout'] + metrics['reward/ok'] + metrics['reward/wrong']).toBe(8);
  });
});

test('a full disk at a checkpoint: exit 1, the reason, and the earlier checkpoint still there', async () => {
  const sets = ['trainer.experiment_name=full', 'trainer.save_freq=1', 'trainer.total_training_steps=2'];
  const runDir = join(dir.path, 'runs/archer-native/full');
  // ENOSPC without a disk of our own: /dev/full takes the place of the second checkpoint's weights
  const hook = dataFile(
    'full-disk.mjs',
    `import fs from 'node:fs';
     import { syncBuiltinESMExports } from 'node:module';
     const { writeFile } = fs.promises;
     fs.promises.writeFile = (path, ...rest) =>
       String(path).includes('global_step_2') && String(path).endsWith('config.json')
         ? writeFile('/dev/full', ...rest)
         : writeFile(path, ...rest);
     syncBuiltinESMExports();`,
  );
  const { startCli } = await import('./run-cli.js');
  const all = ['num_threads=1', 'data.train_batch_size=2', 'actor.ppo_mini_batch_size=2', 'rollout.n=2', 'data.max_response_length=16', 'data.val_files=[]', `trainer.default_local_dir=${dir.path}/runs`, ...sets];
  const args = ['train', ...all.flatMap((one) => ['--set', one])];
  const result = await startCli(args, { env: { NODE_OPTIONS: `--import ${hook}` } }).done;
  expect(result.stderr).toContain('ARCHER_E_IO');
  expect(result.stderr).toMatch(/no space/i);
  expect(result.code).toBe(1);
  const { readdirSync } = await import('node:fs');
  expect(readdirSync(runDir).filter((name) => name.includes('global_step'))).toEqual(['global_step_1']);
  // and the run goes on from it
  const again = await runCli(...args);
  expect(again.code).toBe(0);
  expect(again.stdout).toContain('resumed after step 1');
});
