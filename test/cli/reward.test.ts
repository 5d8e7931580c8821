// `reward FILE`: outcomes without a model.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { tempDir } from '../train/tiny-run.js';
import { runCli, startCli } from './run-cli.js';

let dir: ReturnType<typeof tempDir>;
beforeEach(() => {
  dir = tempDir();
});
afterEach(() => dir.remove());

const rows = [
  { id: 'right', prompt: 'Half?', response: '\\boxed{0.5}', ground_truth: '\\frac12' },
  { id: 2, prompt: [{ role: 'user', content: 'Half?' }], response: '\\boxed{3}', ground_truth: ['1/2', 0.5] },
  { id: 'none', prompt: '', response: '\u2028', ground_truth: 4, data_source: 'gsm8k', extra_info: { a: 1 } },
];

function file(...lines: (object | string)[]): string {
  const path = join(dir.path, 'rows.jsonl');
  writeFileSync(path, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''));
  return path;
}

test('--json: a line for every row, in order; wrong answers are no failure', async () => {
  const { code, stdout } = await runCli('reward', file(...rows), '--json');
  expect(code).toBe(0);
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines.map(({ ms, ...line }) => line)).toEqual([
    { id: 'right', outcome: 'ok', score: 1 },
    { id: 2, outcome: 'wrong', score: 0 },
    { id: 'none', outcome: 'parse_error', score: 0 },
  ]);
  expect(lines.every(({ ms }) => ms >= 0 && ms < 10_000)).toBe(true);
});

test('the table, from standard input, with a verifier for all rows', async () => {
  const { child, done } = startCli(['reward', '-', '--name', 'exact'], { stdin: 'pipe' });
  child.stdin?.end(rows.map((row) => JSON.stringify(row)).join('\n'));
  const { code, stdout } = await done;
  expect(code).toBe(0);
  expect(stdout).toMatch(/\| wrong +\| 2 +\| 66\.7 % /);
  expect(stdout).toMatch(/\| all +\| 3 +\| 100\.0 % /);
});

test.each([
  [{ id: 1, prompt: '', ground_truth: '1' }, 'line 2: field "response" is not text'],
  [{ prompt: '', response: '', ground_truth: '1' }, 'line 2: field "id" is neither text nor a number'],
  [{ id: 1, prompt: '', response: '' }, 'line 2: field "ground_truth" is missing'],
  [{ id: 1, prompt: 3, response: '', ground_truth: '1' }, 'line 2: field "prompt" is neither text nor a list'],
  ['[1]', 'line 2: the row is not an object'],
  ['{', 'line 2: not a JSON value'],
])('a bad row is an error with its place: %j', async (row, message) => {
  const { code, stderr } = await runCli('reward', file(rows[0]!, row));
  expect(code).toBe(2);
  expect(stderr).toContain(message);
});

test('a file that is not there', async () => {
  const { code, stderr } = await runCli('reward', join(dir.path, 'none.jsonl'));
  expect(code).toBe(2);
  expect(stderr).toContain('none.jsonl cannot be read');
});
