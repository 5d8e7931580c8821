// The difficulty filter: rates by content or by row, and errors for files that belong to other data.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { PassRateFilter, readPassRates } from '../../lib/data/pass-rates.js';
import { parseRow } from '../../lib/data/row.js';

const folder = mkdtempSync(join(tmpdir(), 'archer-pass-rates-'));
afterAll(() => rmSync(folder, { recursive: true }));
const path = join(folder, 'pass_rates.jsonl');
const rates = (...lines: unknown[]) => {
  writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
  return readPassRates(path);
};
const row = (prompt: string, index = 0, file = 'a/train.jsonl') =>
  parseRow({ prompt, answer: '1' }, { file, line: index + 1, index }).row;

test('a row is named by its content, whatever file, place and answer it has', () => {
  const { of } = rates({ prompt_id: row('one').id, pass_rate: 0.25 }, { prompt_id: row('two').id, pass_rate: 1 });
  expect(of(row('one', 7, 'b/other.parquet'))).toBe(0.25);
  expect(of(row('two', 3))).toBe(1);
  expect(of(row('three', 0))).toBeUndefined();
});

test('the id is the SHA-256 of the messages as JSON, so that other programs can write it', () => {
  // printf '[["user","one"]]' | sha256sum
  expect(row('one').id).toBe('f19b50f38d34d54a');
});

test('without prompt_id the row over all files counts, and its source must agree', () => {
  const { of } = rates({ index: 0, source: 'a/train', pass_rate: 0.5 }, { index: 1, source: 'b/test', pass_rate: 0.5 });
  expect(of(row('one', 0))).toBe(0.5);
  expect(() => of(row('two', 1))).toThrow(/row 1 is of b\/test, but in data\.train_files it is of a\/train/);
});

test('several measurements of a prompt are weighted by their responses', () => {
  const { of } = rates({ index: 0, pass_rate: 1, n: 1 }, { index: 0, pass_rate: 0, n: 3 });
  expect(of(row('one', 0))).toBe(0.25);
});

describe('the filter', () => {
  test('keeps what is solved sometimes, and rows that were not measured', () => {
    const measured = rates(...[0, 0.125, 1, 0.9].map((pass_rate, index) => ({ index, pass_rate })));
    const filter = new PassRateFilter(measured, { above: 0, below: 1 });
    expect([0, 1, 2, 3, 4].filter((index) => filter.keep(row('q', index)))).toEqual([1, 3, 4]);
    expect(filter.dropped).toEqual([
      { file: 'a/train.jsonl', line: 1, passRate: 0 },
      { file: 'a/train.jsonl', line: 3, passRate: 1 },
    ]);
    expect(filter.withoutRate).toBe(1);
  });

  test('the bounds themselves are outside', () => {
    const measured = rates({ index: 0, pass_rate: 0.2 }, { index: 1, pass_rate: 0.5 }, { index: 2, pass_rate: 0.8 });
    const filter = new PassRateFilter(measured, { above: 0.2, below: 0.8 });
    expect([0, 1, 2].filter((index) => filter.keep(row('q', index)))).toEqual([1]);
  });
});

test.each([
  [{ pass_rate: 0.5 }, /line 1: neither "prompt_id" nor "index"/],
  [{ index: 1.5, pass_rate: 0.5 }, /neither "prompt_id" nor "index"/],
  [{ index: 0, pass_rate: 1.5 }, /field "pass_rate" is 1\.5, not a number from 0 to 1/],
  [{ index: 0 }, /field "pass_rate" is undefined/],
  [{ index: 0, pass_rate: 1, n: 0 }, /field "n" is 0/],
])('%j is an error with file, line and field', (line, message) => {
  expect(() => rates(line)).toThrow(message);
  expect(() => rates(line)).toThrow(path);
});

test('a missing file is named with its key', () => {
  expect(() => readPassRates(join(folder, 'absent'))).toThrow(/absent does not exist; check data\.pass_rates\.file/);
});

test('the hash tells two files apart', () => {
  const first = rates({ index: 0, pass_rate: 0 }).hash;
  expect(rates({ index: 0, pass_rate: 0.5 }).hash).not.toBe(first);
  expect(rates({ index: 0, pass_rate: 0 }).hash).toBe(first);
});
