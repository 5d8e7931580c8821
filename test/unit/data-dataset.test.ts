// Data files: the shapes that are understood, and errors that name file, line and field.

import { existsSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { loadDataset } from '../../lib/data/dataset.js';

const folder = mkdtempSync(join(tmpdir(), 'archer-data-'));
afterAll(() => rmSync(folder, { recursive: true }));

let written = 0;
function file(content: string | Uint8Array, extension = '.jsonl'): string {
  written += 1;
  const path = join(folder, `set${written}${extension}`);
  writeFileSync(path, content);
  return path;
}
const lines = (...values: unknown[]) => values.map((value) => `${JSON.stringify(value)}\n`).join('');
const fails = (files: string[], columns = {}) => expect(loadDataset({ files, columns })).rejects;

const verl = {
  data_source: 'unit/math',
  prompt: [{ role: 'user', content: 'How many?' }],
  ability: 'math',
  reward_model: { style: 'rule', ground_truth: '\\frac{1}{2}' },
  extra_info: { index: 3, split: 'train' },
};

describe('shapes', () => {
  test("verl's record", async () => {
    const path = file(lines(verl));
    const { get, rows, report } = await loadDataset({ files: [path] });
    expect(rows).toBe(1);
    expect(get(0)).toEqual({
      index: 0,
      id: expect.stringMatching(/^[0-9a-f]{16}$/),
      prompt: [{ role: 'user', content: 'How many?' }],
      groundTruth: '\\frac{1}{2}',
      dataSource: 'unit/math',
      extraInfo: { index: 3, split: 'train' },
      origin: { file: path, line: 1 },
    });
    expect(report.files[0]?.shapes).toEqual({ verl: 1 });
  });

  test('the short form: a string prompt, a number or a list as answer, the rest as extra info', async () => {
    const path = file(
      lines({ prompt: 'a', answer: 12, level: 2 }, { prompt: 'b', answer: ['1', '2'], data_source: 's' }),
    );
    const data = await loadDataset({ files: [path] });
    expect(data.get(0)).toMatchObject({
      prompt: [{ role: 'user', content: 'a' }],
      groundTruth: '12',
      extraInfo: { level: 2 },
    });
    expect(data.get(1)).toMatchObject({ groundTruth: ['1', '2'], dataSource: 's', extraInfo: {} });
    expect(data.get(0).dataSource).toMatch(/^archer-data-.*\/set\d+$/);
  });

  test("GSM8K's {question, answer} is recognised, and named columns do the same; #### n is the ground truth", async () => {
    const path = file(lines({ question: 'How much?', answer: 'It is 1 + 1 = <<1+1=2>>2.\n#### 1,450' }));
    for (const columns of [undefined, { prompt: 'question', answer: 'answer' }]) {
      const data = await loadDataset({ files: [path], columns });
      expect(data.get(0)).toMatchObject({ prompt: [{ role: 'user', content: 'How much?' }], groundTruth: '1,450' });
    }
  });

  test('a column may be a path into objects', async () => {
    const path = file(lines({ in: { text: 'q' }, out: [{ x: 1 }], where: 'here' }));
    const data = await loadDataset({ files: [path], columns: { prompt: 'in.text', answer: 'out', source: 'where' } });
    expect(data.get(0)).toMatchObject({
      prompt: [{ role: 'user', content: 'q' }],
      groundTruth: '[{"x":1}]',
      dataSource: 'here',
    });
  });

  test('parquet gives the same rows as JSONL; an int64 is a number', async () => {
    const buffer = parquetWriteBuffer({
      columnData: [
        { name: 'data_source', data: ['p', 'p'], type: 'STRING' },
        { name: 'prompt', data: [verl.prompt, verl.prompt], type: 'JSON' },
        { name: 'reward_model', data: [verl.reward_model, { ground_truth: ['1', '2'] }], type: 'JSON' },
        { name: 'big', data: [5n, 6n], type: 'INT64' },
        { name: 'extra_info', data: [{ index: 0 }, null], type: 'JSON' },
      ],
    });
    const data = await loadDataset({ files: [file(new Uint8Array(buffer), '.parquet')] });
    expect(data.rows).toBe(2);
    expect(data.get(0)).toMatchObject({ prompt: verl.prompt, groundTruth: '\\frac{1}{2}', extraInfo: { index: 0 } });
    expect(data.get(1)).toMatchObject({ groundTruth: ['1', '2'], extraInfo: {}, origin: { line: 2 } });
    const short = await loadDataset({
      files: [
        file(
          new Uint8Array(
            parquetWriteBuffer({
              columnData: [
                { name: 'prompt', data: ['q'] },
                { name: 'answer', data: [7n], type: 'INT64' },
              ],
            }),
          ),
          '.parquet',
        ),
      ],
    });
    expect(short.get(0).groundTruth).toBe('7');
  });
});

describe('parquet by row groups', () => {
  const parquet = (rows: number, changes: (i: number) => object = () => ({})) =>
    file(
      new Uint8Array(
        parquetWriteBuffer({
          columnData: [
            { name: 'prompt', data: Array.from({ length: rows }, (_, i) => `question ${i} 日本`), type: 'STRING' },
            {
              name: 'reward_model',
              data: Array.from({ length: rows }, (_, i) => ({ ground_truth: `${i}`, ...changes(i) })),
              type: 'JSON',
            },
            { name: 'at', data: Array.from({ length: rows }, (_, i) => new Date(i)), type: 'TIMESTAMP' },
            { name: 'large', data: Array.from({ length: rows }, (_, i) => 2n ** 60n + BigInt(i)), type: 'INT64' },
          ],
          rowGroupSize: 7,
        }),
      ),
      '.parquet',
    );

  test('rows of all groups come back in any order, also after the file is gone', async () => {
    const path = parquet(30);
    const data = await loadDataset({ files: [path] });
    rmSync(path);
    expect(data.rows).toBe(30);
    for (const i of [29, 0, 7, 6, 14, 13]) {
      expect(data.get(i)).toMatchObject({
        prompt: [{ role: 'user', content: `question ${i} 日本` }],
        groundTruth: `${i}`,
        origin: { file: path, line: i + 1 },
      });
    }
  });

  test('an int64 beyond 2^53 keeps its digits, a date becomes text', async () => {
    const data = await loadDataset({ files: [parquet(2)], columns: { answer: 'large', source: 'at' } });
    expect(data.get(1)).toMatchObject({ groundTruth: '1152921504606846977', dataSource: '1970-01-01T00:00:00.001Z' });
  });

  test('a malformed row is named by file, row and field', async () => {
    const path = parquet(20, (i) => (i === 15 ? { ground_truth: true } : {}));
    await fails([path]).toThrow(`${path}, row 16: field "reward_model.ground_truth" is "true" (boolean)`);
  });
});

describe('lines', () => {
  test('CRLF, blank lines, a byte order mark, no newline at the end, U+2028 inside a line', async () => {
    const row = (prompt: string) => JSON.stringify({ prompt, answer: '1' });
    const path = file(`\ufeff${row('one')}\r\n\n${row('two\u2028still two')}\n  \n${row('three')}`);
    const data = await loadDataset({ files: [path] });
    expect([0, 1, 2].map((i) => data.get(i).prompt[0]?.content)).toEqual(['one', 'two\u2028still two', 'three']);
    expect([0, 1, 2].map((i) => data.get(i).origin.line)).toEqual([1, 3, 5]);
  });

  test("any texts, read in any order, come back whole (across the reader's chunks too)", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'binary', minLength: 1 }), { minLength: 1, maxLength: 8 }),
        async (texts) => {
          const padded = texts.map((text, i) => (i === 0 ? text + 'x'.repeat(1 << 20) : text));
          const data = await loadDataset({
            files: [file(lines(...padded.map((prompt) => ({ prompt, answer: '1' }))))],
          });
          for (let i = padded.length - 1; i >= 0; i -= 1) expect(data.get(i).prompt[0]?.content).toBe(padded[i]);
        },
      ),
      { numRuns: 5 },
    );
  });

  test('rows of several files follow each other; the hash tells contents, order and columns', async () => {
    const [a, b] = [
      file(lines({ prompt: 'a', answer: '1' })),
      file(lines({ prompt: 'b', answer: '2' }, { prompt: 'c', answer: '3' })),
    ];
    const data = await loadDataset({ files: [a, b] });
    expect([0, 1, 2].map((i) => [data.get(i).index, data.get(i).origin])).toEqual([
      [0, { file: a, line: 1 }],
      [1, { file: b, line: 1 }],
      [2, { file: b, line: 2 }],
    ]);
    const hashes = await Promise.all(
      [
        { files: [a, b] },
        { files: [a, b] },
        { files: [b, a] },
        { files: [a] },
        { files: [a, b], columns: { answer: 'answer' } },
      ].map(async (options) => (await loadDataset(options)).hash),
    );
    expect(hashes[0]).toBe(hashes[1]);
    expect(new Set(hashes).size).toBe(4);
    expect(hashes[0]).toBe(data.hash);
  });

  test('a file that is replaced or removed under a run can still be read', async () => {
    const path = file(lines({ prompt: 'a', answer: '1' }));
    const data = await loadDataset({ files: [path] });
    rmSync(path);
    writeFileSync(path, lines({ prompt: 'b', answer: '2' }));
    expect(data.get(0).prompt[0]?.content).toBe('a');
  });

  test('a file that changes under a run is an error', async () => {
    const path = file(lines({ prompt: 'a', answer: '1' }));
    const data = await loadDataset({ files: [path] });
    utimesSync(path, 1, 1);
    expect(() => data.get(0)).toThrow(/changed while it was in use/);
  });
});

describe('errors name file, line and field', () => {
  const second = (row: unknown) => file(lines({ prompt: 'good', answer: '1' }, row));
  test.each([
    [{ prompt: 'q' }, /line 2: field "answer" is missing/],
    [{ answer: '1' }, /line 2: field "prompt" is missing.*data\.columns\.prompt/],
    [{ prompt: '', answer: '1' }, /line 2: field "prompt" is empty/],
    [{ prompt: 5, answer: '1' }, /line 2: field "prompt" is "5" \(number\)/],
    [{ prompt: [], answer: '1' }, /line 2: field "prompt" is an empty list/],
    [{ prompt: [{ role: 'user' }], answer: '1' }, /line 2: field "prompt\[0\]\.content" is missing/],
    [{ prompt: [{ role: 'user', content: [{ type: 'image' }] }], answer: '1' }, /prompt\[0\]\.content" is a list/],
    [{ prompt: 'q', reward_model: { style: 'rule' } }, /line 2: field "reward_model\.ground_truth" is missing/],
    [{ prompt: 'q', answer: true }, /line 2: field "answer" is "true" \(boolean\)/],
    [{ prompt: 'q', answer: '1', extra_info: 'x' }, /line 2: field "extra_info" is "x"/],
    [{ prompt: 'q', answer: '1', data_source: 4 }, /line 2: field "data_source"/],
    [['q', '1'], /line 2: the row is a list/],
  ])('%j', async (row, message) => {
    const path = second(row);
    await fails([path]).toMatchObject({ code: 'ARCHER_E_DATA', message: expect.stringMatching(message) });
    await fails([path]).toThrow(path);
  });

  test('a number that JSON has rounded is refused', async () => {
    const path = file('{"prompt": "q", "answer": 12345678901234567890}\n');
    await fails([path]).toThrow(/line 1: field "answer" is a number beyond 2\^53/);
  });

  test('broken JSON, broken UTF-8', async () => {
    await fails([file('{"prompt": "a", "answer": "1"}\n{"prompt": \n')]).toThrow(/line 2: not a JSON value/);
    await fails([file(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d]))]).toThrow(/line 1: not UTF-8/);
  });

  test('no file, no rows, no such file, a folder, an unknown or damaged type', async () => {
    await fails([]).toThrow(/No data files are named/);
    await fails([file('\n\n')]).toThrow(/There is no row in/);
    await fails([join(folder, 'absent.jsonl')]).toThrow(/absent\.jsonl does not exist/);
    await fails([folder]).toThrow(/is not a file/);
    await fails([file('a,b', '.csv')]).toThrow(/unknown extension "\.csv"/);
    await fails([file('PAR1 or not', '.parquet')]).toMatchObject({
      code: 'ARCHER_E_DATA',
      message: expect.stringMatching(/not a readable parquet file/),
    });
  });

  test('an empty ground truth is allowed (a reward function may not need it) and reported', async () => {
    const path = file(lines({ prompt: 'a', answer: '' }, { prompt: 'a', answer: '1' }));
    const { report } = await loadDataset({ files: [path] });
    expect(report.emptyGroundTruth).toEqual([{ file: path, line: 1 }]);
  });
});

const shared = '../shared/data';
const withShared = existsSync(shared) ? test : test.skip;
if (!existsSync(shared)) console.log(`skipped: the real data sets, because there is no ${shared}`);

withShared("the real ones: GSM8K, MATH-500, two parquet files in verl's shape", async () => {
  const gsm8k = await loadDataset({ files: [`${shared}/gsm8k/train.jsonl`] });
  expect(gsm8k.rows).toBe(7473);
  expect(gsm8k.get(0)).toMatchObject({ groundTruth: '72', dataSource: 'gsm8k/train' });
  const math = await loadDataset({ files: [`${shared}/math500/test.jsonl`], columns: { prompt: 'problem' } });
  expect(math.rows).toBe(500);
  expect(math.get(0).groundTruth).toBe('\\left( 3, \\frac{\\pi}{2} \\right)');
  const parquet = await loadDataset({
    files: ['dsr_sub', 'math500'].map((name) => `${shared}/verl-parquet/${name}.parquet`),
  });
  expect(parquet.rows).toBe(1709);
  expect(parquet.report.sources).toEqual({ deepscaler: 1209, 'simplerl/math500': 500 });
  expect(parquet.get(1209).extraInfo).toMatchObject({ index: 0, subject: 'Precalculus' });
});
