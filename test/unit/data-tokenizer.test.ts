// The tokenizer, chat templates and encoded prompts, on a 317-token byte-level tokenizer made with Python's tokenizers
// (fixtures/tokenizer; reference.json holds Python's ids).

import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from '@jest/globals';
import { renderPrompt } from '../../lib/data/chat-template.js';
import { loadDataset } from '../../lib/data/dataset.js';
import { encodePrompts } from '../../lib/data/encode-prompts.js';
import { bytesOfTokens } from '../../lib/data/token-bytes.js';
import { loadTokenizer } from '../../lib/data/tokenizer.js';

const fixture = fileURLToPath(new URL('./fixtures/tokenizer', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'archer-tokenizer-'));
afterAll(() => rmSync(folder, { recursive: true }));

let copies = 0;
function copy(changes: Record<string, string | undefined>): string {
  copies += 1;
  const path = join(folder, String(copies));
  cpSync(fixture, path, { recursive: true });
  for (const [name, content] of Object.entries(changes)) {
    if (content === undefined) rmSync(join(path, name));
    else writeFileSync(join(path, name), content);
  }
  return path;
}
const config = JSON.parse(readFileSync(join(fixture, 'tokenizer_config.json'), 'utf8'));
const withConfig = (changes: object) => copy({ 'tokenizer_config.json': JSON.stringify({ ...config, ...changes }) });
const reference: { text: string; ids: number[] }[] = JSON.parse(readFileSync(join(fixture, 'reference.json'), 'utf8'));

describe('tokenizer', () => {
  test("ids are Python's, and decode to the text", async () => {
    const tokenizer = await loadTokenizer(fixture);
    for (const { text, ids } of reference) {
      const encoded = await tokenizer.encode(text);
      expect(Array.from(encoded)).toEqual(ids);
      expect(await tokenizer.decode(encoded)).toBe(text);
    }
    const batch = await tokenizer.encodeBatch(reference.map((entry) => entry.text));
    expect(batch.map((ids) => Array.from(ids))).toEqual(reference.map((entry) => entry.ids));
    expect(await tokenizer.decodeBatch(batch)).toEqual(reference.map((entry) => entry.text));
    expect(await tokenizer.decode([1, 288, 2], { skipSpecial: true })).toBe('user');
    expect(await tokenizer.decode([])).toBe('');
  });

  test('special tokens, as strings and as objects; the vocabulary', async () => {
    const tokenizer = await loadTokenizer(fixture, { vocabSize: 512 });
    expect(tokenizer).toMatchObject({ eosTokenId: 2, padTokenId: 0, vocabSize: 512 });
    expect(tokenizer.specialTokens).toEqual({ eos_token: '<|im_end|>', pad_token: '<|endoftext|>' });
    expect(tokenizer.bosTokenId).toBeUndefined();
    expect(tokenizer.tokenId('<|im_start|>')).toBe(1);
    expect(tokenizer.tokenId('absent')).toBeUndefined();
    const mapped = copy({
      'tokenizer_config.json': '{}',
      'special_tokens_map.json': '{"eos_token": "<|endoftext|>"}',
    });
    expect(await loadTokenizer(mapped)).toMatchObject({ eosTokenId: 0, vocabSize: 317, chatTemplate: undefined });
  });

  test('tokenBytes: the bytes of all tokens of a text, one after the other, are the text', async () => {
    const tokenizer = await loadTokenizer(fixture, { vocabSize: 400 });
    const { bytes, offsets } = tokenizer.tokenBytes();
    expect(offsets).toHaveLength(401);
    const of = (id: number) => Buffer.from(bytes.subarray(offsets[id], offsets[id + 1]));
    for (const { text, ids } of reference) expect(Buffer.concat(ids.map(of)).toString('utf8')).toBe(text);
    expect(of(2).toString()).toBe('<|im_end|>');
    expect(of(399)).toHaveLength(0);
  });

  test('tokenBytes of a SentencePiece-like vocabulary: byte fallback and the visible space', () => {
    const vocab = { '<s>': 0, '<0x0A>': 1, '▁the': 2, é: 3, '<0xE2>': 4 };
    const json = {
      added_tokens: [{ content: '<s>' }],
      decoder: { type: 'Sequence', decoders: [{ type: 'Replace' }, { type: 'ByteFallback' }, { type: 'Fuse' }] },
      model: { byte_fallback: true },
    };
    const { bytes, offsets } = bytesOfTokens(vocab, json, 5);
    expect(Array.from(bytes)).toEqual([...Buffer.from('<s>'), 0x0a, ...Buffer.from(' the'), ...Buffer.from('é'), 0xe2]);
    expect(Array.from(offsets)).toEqual([0, 3, 4, 8, 10, 11]);
  });

  test.each([
    ['an id beyond the vocabulary', {}, { vocabSize: 300 }, /has id 316 \(.*\) but the model's vocab_size is 300/],
    ['no tokenizer.json', { 'tokenizer.json': undefined }, {}, /has no tokenizer\.json/],
    ['a tokenizer.json cut short', { 'tokenizer.json': '{"version": "1.0", "mod' }, {}, /not valid JSON.*cut short/],
    ['JSON that is no tokenizer', { 'tokenizer.json': '{"model": {"type": "None"}}' }, {}, /not a usable tokenizer/],
    ['a damaged tokenizer_config.json', { 'tokenizer_config.json': '[1]' }, {}, /holds no JSON object/],
  ])('%s is ARCHER_E_MODEL', async (_name, changes, options, message) => {
    await expect(loadTokenizer(copy(changes), options)).rejects.toMatchObject({
      code: 'ARCHER_E_MODEL',
      message: expect.stringMatching(message),
    });
  });
});

describe('chat template', () => {
  const messages = [
    { role: 'system', content: 'Be brief.' },
    { role: 'user', content: 'What is 3 + 4?' },
  ];

  test("renders what transformers' apply_chat_template renders", async () => {
    const tokenizer = await loadTokenizer(fixture);
    const expected =
      '<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\nWhat is 3 + 4?<|im_end|><|im_start|>assistant';
    expect(renderPrompt(messages, tokenizer)).toBe(expected);
    expect(renderPrompt(messages.slice(1), tokenizer, { systemPrompt: 'Be brief.' })).toBe(expected);
    expect(renderPrompt(messages, tokenizer, { systemPrompt: 'Ignored.' })).toBe(expected);
    expect(renderPrompt(messages, tokenizer, { addGenerationPrompt: false })).toBe(
      expected.replace('<|im_start|>assistant', ''),
    );
  });

  test('chat_template.jinja wins; a list has a default; extra variables reach the template', async () => {
    const jinja = await loadTokenizer(
      copy({ 'chat_template.jinja': '{{ messages[0].content }}{{ eos_token }}{{ thinking }}' }),
    );
    expect(renderPrompt(messages, jinja, { templateArguments: { thinking: 'off' } })).toBe('Be brief.<|im_end|>off');
    const list = [
      { name: 'tool', template: 'no' },
      { name: 'default', template: 'yes' },
    ];
    expect(renderPrompt(messages, await loadTokenizer(withConfig({ chat_template: list })))).toBe('yes');
  });

  test('without a template, or with it switched off: the contents, line by line', async () => {
    const tokenizer = await loadTokenizer(withConfig({ chat_template: undefined }));
    expect(renderPrompt(messages, tokenizer)).toBe('Be brief.\nWhat is 3 + 4?');
    expect(renderPrompt(messages, await loadTokenizer(fixture), { applyChatTemplate: false })).toBe(
      'Be brief.\nWhat is 3 + 4?',
    );
  });

  test("a template's raise_exception is ARCHER_E_DATA with its message; one that cannot be parsed is the model's fault", async () => {
    const tokenizer = await loadTokenizer(fixture);
    const refused = () => renderPrompt([{ role: 'tool', content: 'x' }], tokenizer);
    expect(refused).toThrow(/refuses the messages \(roles: tool\).*the first message must come from system or user/);
    const broken = { ...tokenizer, chatTemplate: '{% if %}' };
    let thrown: unknown;
    try {
      renderPrompt(messages, broken);
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toMatchObject({ code: 'ARCHER_E_MODEL' });
  });
});

describe('encoded prompts', () => {
  const texts = ['short', 'a much longer prompt than the others are', 'short too'];
  async function encode(options: Partial<Parameters<typeof encodePrompts>[2]>) {
    const path = join(folder, 'prompts.jsonl');
    writeFileSync(path, texts.map((prompt) => `${JSON.stringify({ prompt, answer: '1' })}\n`).join(''));
    const tokenizer = await loadTokenizer(fixture);
    const encoded = await encodePrompts(await loadDataset({ files: [path] }), tokenizer, {
      maxPromptLength: 25,
      ...options,
    });
    return { path, tokenizer, ...encoded };
  }

  test('keys and indices are the rows; the ids are those of the rendered template', async () => {
    const { prompts, report, tokenizer } = await encode({ maxPromptLength: 100 });
    expect(prompts.map((prompt) => [prompt.index, prompt.promptKey])).toEqual([
      [0, 0],
      [1, 1],
      [2, 2],
    ]);
    expect(await tokenizer.decode(prompts[0]?.ids ?? [])).toBe(
      '<|im_start|>user\nshort<|im_end|><|im_start|>assistant',
    );
    expect(report.lengths.max).toBe(prompts[1]?.ids.length);
  });

  test('too long: an error with file, line and length; dropped and named; or cut on the left', async () => {
    await expect(encode({})).rejects.toMatchObject({
      code: 'ARCHER_E_DATA',
      message: expect.stringMatching(
        /prompts\.jsonl, line 2: the prompt has \d\d tokens, data\.max_prompt_length is 25/,
      ),
    });
    const whole = (await encode({ maxPromptLength: 100 })).prompts[1]?.ids as Int32Array;
    const dropped = await encode({ overlongPrompts: 'drop' });
    expect(dropped.prompts.map((prompt) => prompt.promptKey)).toEqual([0, 2]);
    expect(dropped.report.dropped).toEqual([{ file: dropped.path, line: 2, length: whole.length }]);
    const cut = await encode({ overlongPrompts: 'truncate_left' });
    expect(Array.from(cut.prompts[1]?.ids ?? [])).toEqual(Array.from(whole.slice(-25)));
    expect(cut.report.truncated).toHaveLength(1);
  });

  test('nothing left is an error; so is a row that the template refuses, with its line', async () => {
    await expect(encode({ maxPromptLength: 3, overlongPrompts: 'drop' })).rejects.toThrow(
      /All 3 prompts are longer than data\.max_prompt_length 3/,
    );
    const path = join(folder, 'refused.jsonl');
    writeFileSync(path, `${JSON.stringify({ prompt: [{ role: 'tool', content: 'x' }], answer: '1' })}\n`);
    const refused = encodePrompts(await loadDataset({ files: [path] }), await loadTokenizer(fixture), {
      maxPromptLength: 9,
    });
    await expect(refused).rejects.toThrow(/refused\.jsonl, line 1: The model's chat template refuses/);
  });
});
