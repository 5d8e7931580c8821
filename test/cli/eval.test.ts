// `eval` as a user meets it: the report, the folder, kill -9 in mid-run, what a changed configuration is told, --compare.
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { runCli, startCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

/** Two benchmarks out of the bundled task. */
function configFile(...more: string[]): string {
  const path = join(dir.path, 'eval.yaml');
  const lines = [
    'num_threads: 1',
    'data: { max_response_length: 40 }',
    // A machine that stands still for a while must not make a timeout out of a verdict.
    'reward: { timeout_seconds: 600 }',
    'val:',
    '  temperature: 1',
    '  benchmarks:',
    '    - { name: short, files: bundled, max_samples: 5, n: 2 }',
    '    - { name: long, files: bundled, max_samples: 36, n: 8, max_response_length: 60 }',
    ...more,
  ];
  writeFileSync(path, lines.join('\n'));
  return path;
}

const evaluate = (out: string, ...more: string[]) => ['eval', configFile(), '--out', join(dir.path, out), ...more];

function contents(out: string): Record<string, string> {
  const folder = join(dir.path, out);
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));
}

const rows = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('the report, the folder, and the files in it', async () => {
  const { code, stdout } = await runCli(...evaluate('out', '--only', 'short', '--json'));
  expect(code).toBe(0);
  const summary = JSON.parse(stdout);
  expect(summary.benchmarks).toHaveLength(1);
  const [{ metrics, ...one }] = summary.benchmarks;
  expect(one).toMatchObject({ name: 'short', problems: 5, n: 2, temperature: 1, max_response_length: 40 });
  for (const name of ['avg@2', 'pass@1', 'pass@2', 'maj@2', 'avg@2/ci_low', 'avg@2/ci_high']) {
    expect(metrics).toHaveProperty([name]);
  }
  const files = contents('out');
  expect(Object.keys(files).sort()).toEqual([
    'evaluation.json',
    'pass_rates.jsonl',
    'responses.jsonl',
    'summary.json',
    'summary.md',
  ]);
  const responses = rows(files['responses.jsonl']!);
  expect(responses.map(({ id }) => id).slice(0, 3)).toEqual(['short/0/0', 'short/0/1', 'short/1/0']);
  expect(responses).toHaveLength(10);
  const correct = responses.filter(({ outcome }) => outcome === 'ok').length;
  expect(rows(files['pass_rates.jsonl']!).reduce((sum, { num_correct }) => sum + num_correct, 0)).toBe(correct);
  expect(JSON.parse(files['summary.json']!)).toEqual(summary);
  expect(files['summary.md']).toContain('| avg@2 ');
}, 60_000);

test('killed at any moment and started again it ends in the same bytes', async () => {
  expect((await runCli(...evaluate('whole'))).code).toBe(0);
  const responses = join(dir.path, 'parts/responses.jsonl');
  // After the first benchmark, and after the first round of the second.
  for (const responsesDone of [10, 10 + 256]) {
    const { child, done } = startCli(evaluate('parts'));
    const lines = () => (existsSync(responses) ? readFileSync(responses, 'utf8').split('\n').length - 1 : 0);
    while (lines() < responsesDone && child.exitCode === null) await sleep(5);
    child.kill('SIGKILL');
    expect((await done).signal).toBe('SIGKILL');
  }
  expect((await runCli(...evaluate('parts'))).code).toBe(0);
  expect(contents('parts')).toMatchObject(contents('whole'));
}, 120_000);

test('another configuration for the same folder is refused, naming what differs', async () => {
  expect((await runCli(...evaluate('out', '--only', 'short'))).code).toBe(0);
  const { code, stderr } = await runCli(...evaluate('out', '--only', 'short', '-t', '0.5'));
  expect(code).toBe(2);
  expect(stderr).toContain('ARCHER_E_CONFIG');
  expect(stderr).toContain('benchmarks.0.sampling.temperature was 1, is 0.5');
}, 60_000);

test('--compare: the paired difference of two finished evaluations', async () => {
  for (const [out, seed] of [
    ['a', '1'],
    ['b', '2'],
  ]) {
    expect((await runCli(...evaluate(out!, '--only', 'short', '--set', `trainer.seed=${seed}`))).code).toBe(0);
  }
  const folders = [join(dir.path, 'a'), join(dir.path, 'b')];
  const { code, stdout } = await runCli('eval', '--compare', ...folders, '--json');
  expect(code).toBe(0);
  const [{ first, second, difference }] = JSON.parse(stdout).benchmarks;
  expect(difference.mean).toBeCloseTo(second.mean - first.mean, 12);
  expect((await runCli('eval', '--compare', ...folders)).stdout).toContain('difference (paired)');
  const same = await runCli('eval', '--compare', folders[0]!, folders[0]!, '--json');
  expect(JSON.parse(same.stdout).difference).toEqual({ mean: 0, low: 0, high: 0 });
  const none = await runCli('eval', '--compare', folders[0]!, dir.path);
  expect(none.code).toBe(2);
  expect(none.stderr).toContain('no finished evaluation');
}, 60_000);

test('a recipe of the paper without its data names the command that fetches it', async () => {
  const { code, stderr } = await startCli(['eval', 'recipes/eval-paper-math.yaml', '--model', 'bundled'], {
    env: { HF_HUB_CACHE: dir.path },
  }).done;
  expect(code).toBe(2);
  expect(stderr).toContain('archer-native pull HuggingFaceH4/aime_2024 --dataset');
}, 60_000);
