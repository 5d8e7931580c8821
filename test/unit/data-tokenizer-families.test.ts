// Tokenizers and chat templates in the manner of the families that people train, against Python's (fixtures/tokenizers,
// made by tools/tokenizers/make_fixtures.py). tools/tokenizers/check.mjs does the same with the families' own files.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from '@jest/globals';
import { renderPrompt } from '../../lib/data/chat-template.js';
import { loadTokenizer, type Tokenizer } from '../../lib/data/tokenizer.js';
import type { ChatMessage } from '../../lib/data/types.js';
import { TextStream } from '../../lib/rollout/text-stream.js';

interface Golden {
  strings: string[];
  conversations: ChatMessage[][];
  families: Record<string, { strings: string[]; rendered: string[] }>;
}

const fixtures = fileURLToPath(new URL('./fixtures/tokenizers', import.meta.url));
const golden: Golden = JSON.parse(readFileSync(join(fixtures, 'golden.json'), 'utf8'));
const digest = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);

/** Ids, ids with special tokens, both decodings, and that of a part which may begin and end within a character. */
async function factsOf(tokenizer: Tokenizer, text: string): Promise<unknown[]> {
  const ids = Array.from(await tokenizer.encode(text));
  const part = ids.slice(Math.floor(ids.length / 3), Math.floor((2 * ids.length) / 3) + 1);
  return [
    ids,
    Array.from(await tokenizer.encode(text, { addSpecial: true })),
    await tokenizer.decode(ids),
    await tokenizer.decode(ids, { skipSpecial: true }),
    await tokenizer.decode(part),
  ];
}

describe.each(Object.keys(golden.families))('%s', (name) => {
  const family = golden.families[name] as Golden['families'][string];

  test("ids and decodings of awkward strings are Python's", async () => {
    const tokenizer = await loadTokenizer(join(fixtures, name));
    const wrong: string[] = [];
    for (const [i, text] of golden.strings.entries()) {
      if (digest(await factsOf(tokenizer, text)) !== family.strings[i]) wrong.push(text);
    }
    expect(wrong).toEqual([]);
    expect(family.strings.length).toBeGreaterThanOrEqual(400);
  });

  test('the chat template renders byte for byte', async () => {
    const tokenizer = await loadTokenizer(join(fixtures, name));
    const rendered = golden.conversations.flatMap((chat) =>
      [false, true].map((addGenerationPrompt) => renderPrompt(chat, tokenizer, { addGenerationPrompt })),
    );
    expect(rendered).toEqual(family.rendered);
  });

  test('streamed token by token, no text is cut within a character, nor held back longer than that', async () => {
    const tokenizer = await loadTokenizer(join(fixtures, name));
    const ids = await Promise.all(golden.strings.map(async (text) => Array.from(await tokenizer.encode(text))));
    const whole = await tokenizer.decodeBatch(ids, { skipSpecial: true });
    const emitted = ids.map(() => '');
    let decoding: Promise<string[]> | undefined;
    const decodeBatch: Tokenizer['decodeBatch'] = (...batch) => {
      decoding = tokenizer.decodeBatch(...batch);
      return decoding;
    };
    const stream = new TextStream({
      tokenizer: { decodeBatch },
      stop: [],
      onText: ({ prompt, text }) => {
        emitted[prompt] += text;
      },
      onFailure: () => {},
    });
    for (let at = 0; ids.some((own) => at < own.length); at += 1) {
      stream.push(Int32Array.from(ids.flatMap((own, i) => (at < own.length ? [i, 0, own[at] as number] : []))));
      for (let seen: typeof decoding; seen !== decoding; await turn()) {
        seen = decoding;
        await seen;
      }
    }
    const beginnings = [...emitted];
    await stream.finish(whole.map((text) => [text]));
    expect(emitted).toEqual(whole);
    expect(beginnings).toEqual(whole.map((text, i) => text.slice(0, beginnings[i]?.length)));
    const heldBack = whole.filter((text, i) => text !== beginnings[i] && !text.endsWith('\uFFFD'));
    expect(heldBack).toEqual([]);
  });
});

describe("Python's strip in templates", () => {
  const render = (expression: string, content: string) =>
    renderPrompt([{ role: 'user', content }], {
      chatTemplate: `{{ ${expression.replaceAll('x', 'messages[0].content')} }}`,
      specialTokens: {},
    });

  test.each([
    ["x.strip('\\n')", '\n \n a \n \n', ' \n a \n '],
    ["x.lstrip('ab')", 'abba cab', ' cab'],
    ["x.rstrip('🙂')", '🙂a🙂🙂', '🙂a'],
    ['x.strip()', '\u0085\x1c a\ufeff\u3000', 'a\ufeff'],
    ['x | trim', '\ufeff a \u0085', '\ufeff a'],
    ["x | trim('-')", '-- a --', ' a '],
    ["x.split('|')[-1].lstrip('\\n') + x[:1].strip()", ' |\n b', ' b'],
    ["(x | trim).strip('a')", ' aba ', 'b'],
  ])('%s of %j is %j', (expression, content, expected) => {
    expect(render(expression, content)).toBe(expected);
  });

  test('of what is no text is the error that Python raises too', () => {
    expect(() => render('absent.strip()', 'a')).toThrow(/no text that could be stripped/);
  });
});
