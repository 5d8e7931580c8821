// tools/livecodebench/make_rows.py: a release file's problem becomes a row that our data room reads.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { loadDataset } from '../../lib/data/dataset.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'archer-lcb-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

function makeRows(problems: object[]): string {
  const input = join(dir, 'test.jsonl');
  const out = join(dir, 'rows.jsonl');
  writeFileSync(input, problems.map((problem) => `${JSON.stringify(problem)}\n`).join(''));
  const flags = ['--begin', '2024-08-01', '--end', '2025-02-01', '--source', 'livecodebench_v5', '--out', out];
  execFileSync('python3', ['tools/livecodebench/make_rows.py', ...flags, input], { stdio: 'pipe' });
  return out;
}

const problem = {
  question_content: 'Add one.',
  question_id: 'abc',
  difficulty: 'easy',
  contest_date: '2024-10-05T00:00:00',
  starter_code: '',
  metadata: '{}',
  public_test_cases: '[{"input":"1","output":"2","testtype":"stdin"}]',
  private_test_cases: 'packed',
};

test('programs and functions of the chosen dates, with their tests as they are packed', async () => {
  const out = makeRows([
    problem,
    { ...problem, contest_date: '2025-03-01T00:00:00' },
    {
      ...problem,
      starter_code: 'class Solution:\n    def add(self, x):\n',
      metadata: '{"func_name": "add"}',
    },
  ]);
  const dataset = await loadDataset({ files: [out] });
  expect(dataset.rows).toBe(2);
  const [program, method] = [dataset.get(0), dataset.get(1)];
  expect(program.dataSource).toBe('livecodebench_v5');
  expect(program.prompt[0]?.content).toMatch(/^Add one\.\n\nWrite a Python program/);
  expect(JSON.parse(program.groundTruth as string)).toEqual({
    public_test_cases: problem.public_test_cases,
    private_test_cases: 'packed',
  });
  expect(method.prompt[0]?.content).toContain('```python\nclass Solution:');
  expect(method.extraInfo).toMatchObject({ func_name: 'add', difficulty: 'easy' });
  expect(readFileSync(out, 'utf8')).not.toContain('2025-03');
});
