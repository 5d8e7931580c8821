// From the data section of a configuration to prompts: templates by source, the difficulty filter, weighted files, and
// the report that counts and names what was left out.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config/index.js';
import { loadTokenizer, type Tokenizer } from '../../lib/data/tokenizer.js';
import { loadTrainingData, samplerFor } from '../../lib/train/setup.js';

const folder = mkdtempSync(join(tmpdir(), 'archer-train-data-'));
afterAll(() => rmSync(folder, { recursive: true }));
let tokenizer: Tokenizer;
beforeAll(async () => {
  tokenizer = await loadTokenizer(fileURLToPath(new URL('./fixtures/tokenizers/qwen3', import.meta.url)));
});

function write(name: string, rows: unknown[]): string {
  const path = join(folder, name);
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  return path;
}
const questions = (count: number, source: string, from = 0) =>
  Array.from({ length: count }, (_, i) => ({ prompt: `What is ${from + i}?`, answer: '1', data_source: source }));

const files = [write('a.jsonl', questions(4, 'sums')), write('b.jsonl', questions(6, 'words', 4))];
async function load(data: Record<string, unknown>) {
  const { config } = loadConfig({
    object: { data: { train_files: files, val_files: [], train_batch_size: 2, ...data } },
  });
  const loaded = await loadTrainingData(config, tokenizer);
  return { ...loaded.data, validation: loaded.validation, config };
}

describe('prompt templates', () => {
  const template = 'Q: {prompt} ({prompt})\nPut the answer in \\boxed{}; $& and $1 are text.';

  test('by source; default and instruction are for the others', async () => {
    const { prompts, report } = await load({ prompt_templates: { sums: template }, instruction: 'Be brief.' });
    expect(prompts[0]?.text).toBe('Q: What is 0? (What is 0?)\nPut the answer in \\boxed{}; $& and $1 are text.');
    expect(prompts[4]?.text).toBe('What is 4?\nBe brief.');
    expect(report).toContain('prompt templates: sums 4 rows');
    const text = await tokenizer.decode(prompts[0]?.ids ?? []);
    expect(text).toBe(`<|im_start|>user\n${prompts[0]?.text}<|im_end|>\n<|im_start|>assistant\n`);
    const both = await load({ prompt_templates: { sums: template, default: '{prompt}!', absent: '{prompt}?' } });
    expect(both.prompts[4]?.text).toBe('What is 4?!');
    expect(both.report).toContain('prompt templates: sums 4 rows, default 6 rows, absent 0 rows');
  });

  test('a template without {prompt} is refused', async () => {
    await expect(load({ prompt_templates: { sums: 'Answer.' } })).rejects.toThrow(
      /takes a map of texts with \{prompt\}/,
    );
  });

  test('apply_chat_template_kwargs reach the chat template', async () => {
    const { prompts } = await load({ apply_chat_template_kwargs: { enable_thinking: false } });
    expect(await tokenizer.decode(prompts[0]?.ids ?? [])).toMatch(/assistant\n<think>\n\n<\/think>\n\n$/);
  });
});

describe('the difficulty filter', () => {
  const rates = (lines: unknown[]) => write('pass_rates.jsonl', lines);

  test('leaves out what is always or never solved, before encoding; counted, named, listed', async () => {
    const { prompts: all, hash } = await load({});
    const file = rates([
      { prompt_id: all[1]?.row.id, pass_rate: 0 },
      { prompt_id: all[5]?.row.id, pass_rate: 1 },
      { prompt_id: all[6]?.row.id, pass_rate: 0.5 },
    ]);
    const kept = await load({ pass_rates: { file } });
    expect(kept.prompts.map(({ promptKey }) => promptKey)).toEqual([0, 2, 3, 4, 6, 7, 8, 9]);
    expect(kept.perFile).toEqual([3, 5]);
    expect(kept.report.join('\n')).toContain(
      `2 rows left out, not solved more than 0 and less than 1 of the time: ${files[0]}, line 2 (0); ${files[1]}, line 2 (1)`,
    );
    expect(kept.report).toContain('7 rows have no pass rate and are kept');
    expect(kept.dropped).toEqual([
      { file: files[0], line: 2, passRate: 0, reason: 'pass_rate' },
      { file: files[1], line: 2, passRate: 1, reason: 'pass_rate' },
    ]);
    expect(kept.hash).not.toBe(hash);
  });

  test('the template of a run does not change a prompt’s id', async () => {
    const [plain, wrapped] = [await load({}), await load({ instruction: 'Be brief.' })];
    expect(wrapped.prompts.map(({ row }) => row.id)).toEqual(plain.prompts.map(({ row }) => row.id));
  });

  test('nothing left is an error; bounds the wrong way round are one too', async () => {
    const file = rates(questions(10, '').map((_, index) => ({ index, pass_rate: 0 })));
    await expect(load({ pass_rates: { file } })).rejects.toThrow(/None of the 10 rows is kept by its pass rate/);
    await expect(load({ pass_rates: { file, above: 0.5, below: 0.5 } })).rejects.toThrow(/leave no pass rate between/);
  });

  test('a file that has none of the prompts is an error', async () => {
    const file = rates([{ prompt_id: '0123456789abcdef', pass_rate: 0.5 }]);
    await expect(load({ pass_rates: { file } })).rejects.toThrow(/has the pass rate of none of the 10 rows/);
  });

  test('held-out problems are not filtered', async () => {
    const file = rates([{ index: 0, pass_rate: 0 }]);
    const { prompts, validation } = await load({ pass_rates: { file }, val_files: [files[0]] });
    expect([prompts.length, validation?.prompts.length]).toEqual([9, 4]);
  });
});

describe('weighted files', () => {
  test('give their shares of every batch', async () => {
    const loaded = await load({ train_file_weights: [1, 1] });
    expect(loaded.perFile).toEqual([4, 6]);
    const sampler = samplerFor(loaded.config, loaded);
    for (let i = 0; i < 12; i += 1) {
      const batch = sampler.next(2).map((at) => loaded.prompts[at]?.row.dataSource);
      expect(batch.sort()).toEqual(['sums', 'words']);
    }
  });

  test('without weights every row comes once an epoch', async () => {
    const loaded = await load({});
    expect(samplerFor(loaded.config, loaded).next(10).sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });

  test('one weight for each file; a file of which nothing is left is an error', async () => {
    await expect(load({ train_file_weights: [1] })).rejects.toThrow(/has 1 numbers for 2 files/);
    const file = write(
      'rates.jsonl',
      Array.from({ length: 4 }, (_, index) => ({ index, pass_rate: 0 })),
    );
    const loaded = await load({ train_file_weights: [1, 1], pass_rates: { file } });
    expect(() => samplerFor(loaded.config, loaded)).toThrow(/No prompt of .*a\.jsonl is left/);
  });
});

test('prompts too long are counted, named with their lengths, and listed', async () => {
  const long = write('long.jsonl', [...questions(2, 's'), { prompt: 'word '.repeat(50), answer: '1' }]);
  const { report, dropped } = await load({ train_files: [long], overlong_prompts: 'drop', max_prompt_length: 60 });
  expect(report[0]).toMatch(/^2 prompts of 3 rows, \d+ to \d+ tokens/);
  expect(report[1]).toMatch(/^1 row dropped as longer than 60 tokens: .*long\.jsonl, line 3 \(\d+ tokens\)$/);
  expect(dropped).toEqual([{ file: long, line: 3, reason: 'overlong', length: expect.any(Number) }]);
});
