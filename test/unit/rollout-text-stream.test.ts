// Text that is handed out while it is made: whole characters, no part of a stop string, and nothing lost or doubled.
import { resolve } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { loadTokenizer } from '../../lib/data/tokenizer.js';
import { certainLength, type TextPiece, TextStream } from '../../lib/rollout/text-stream.js';

/** One id per byte: every character beyond ASCII is several tokens. */
const bytewise = {
  decodeBatch: async (windows: readonly ArrayLike<number>[]) =>
    windows.map((ids) => Buffer.from(Array.from(ids)).toString('utf8')),
};

function collect(stop: string[] = [], tokenizer: ConstructorParameters<typeof TextStream>[0]['tokenizer'] = bytewise) {
  const pieces: TextPiece[] = [];
  const failures: string[] = [];
  const stream = new TextStream({
    tokenizer,
    stop,
    onText: (piece) => pieces.push(piece),
    onFailure: () => failures.push('failed'),
  });
  return { pieces, failures, stream };
}

const flat = (ids: Iterable<number>, prompt = 0, sample = 0) =>
  Int32Array.from([...ids].flatMap((id) => [prompt, sample, id]));

describe('pieces', () => {
  const text = 'naïve 🙂 – 日本語, ok';

  test.each([1, 2, 3, 5, 100])(
    '%i tokens at a time: whole characters alone, which add up to the text',
    async (size) => {
      const { pieces, stream } = collect();
      const bytes = [...Buffer.from(text)];
      for (let i = 0; i < bytes.length; i += size) {
        stream.push(flat(bytes.slice(i, i + size)));
        await turn();
      }
      expect(pieces.map((piece) => piece.text).join('')).toBe(text);
      for (const piece of pieces) expect(piece.text).not.toMatch(/\uFFFD|^$/);
      await stream.finish([[text]]);
      expect(pieces.map((piece) => piece.text).join('')).toBe(text);
      if (size === 1) expect(pieces.length).toBe([...text].length);
    },
  );

  test('what never becomes a character comes with the end', async () => {
    const { pieces, stream } = collect();
    const bytes = [...Buffer.from('ab🙂')].slice(0, -1);
    stream.push(flat(bytes.slice(0, 2)));
    await turn();
    stream.push(flat(bytes.slice(2)));
    await turn();
    expect(pieces.map((piece) => piece.text)).toEqual(['ab']);
    await stream.finish([['ab\uFFFD']]);
    expect(pieces.map((piece) => piece.text)).toEqual(['ab', '\uFFFD']);
  });

  test('responses are kept apart, in any order of their tokens', async () => {
    const { pieces, stream } = collect();
    stream.push(Int32Array.from([...flat([97], 0, 0), ...flat([98], 1, 1), ...flat([99], 0, 1), ...flat([100], 1, 1)]));
    await stream.finish([
      ['a', 'c'],
      ['', 'bd'],
    ]);
    expect(pieces).toEqual(
      expect.arrayContaining([
        { prompt: 0, sample: 0, text: 'a' },
        { prompt: 0, sample: 1, text: 'c' },
        { prompt: 1, sample: 1, text: 'bd' },
      ]),
    );
    expect(pieces).toHaveLength(3);
  });

  test('tokens that come while others are decoded are not forgotten', async () => {
    const { pieces, stream } = collect();
    for (const byte of Buffer.from('abcdef')) stream.push(flat([byte]));
    await turn();
    expect(pieces.map((piece) => piece.text).join('')).toBe('abcdef');
    stream.push(new Int32Array(0));
    stream.push(flat([103]));
    await turn();
    expect(pieces.map((piece) => piece.text).join('')).toBe('abcdefg');
  });

  test('a real tokenizer, one token at a time, with a special token that is left out', async () => {
    const tokenizer = await loadTokenizer(resolve(import.meta.dirname ?? '.', 'fixtures/tokenizer'));
    const { pieces, stream } = collect([], tokenizer);
    const ids = [...(await tokenizer.encode('Two  words,\n\tÜber 日本 🙂🙃!')), 2];
    const whole = await tokenizer.decode(ids, { skipSpecial: true });
    for (const id of ids) {
      stream.push(flat([id]));
      await turn();
    }
    await stream.finish([[whole]]);
    expect(pieces.map((piece) => piece.text).join('')).toBe(whole);
    for (const piece of pieces) expect(piece.text).not.toContain('\uFFFD');
  });
});

describe('stop strings', () => {
  test.each([
    ['hello', ['xyz'], 5],
    ['hello', ['lo'], 3],
    ['hello', ['loud'], 3],
    ['hello', ['oo', 'llowing'], 2],
    ['a lo b', ['lo'], 2],
    ['aaa', ['aab'], 1],
    ['</th', ['</think>'], 0],
    ['', ['a'], 0],
    ['hello', [], 5],
  ])('of %j, with stop strings %j, %i characters are certain', (text, stop, length) => {
    expect(certainLength(text, stop)).toBe(length);
  });

  test('come whole with the end of the response, never in parts; false beginnings are let go', async () => {
    const { pieces, stream } = collect(['</end>']);
    const text = 'a </en b </end>';
    for (const byte of Buffer.from(text)) {
      stream.push(flat([byte]));
      await turn();
    }
    expect(pieces.map((piece) => piece.text).join('')).toBe('a </en b ');
    await stream.finish([[text]]);
    expect(pieces.at(-1)?.text).toBe('</end>');
    expect(pieces.map((piece) => piece.text).join('')).toBe(text);
  });
});

describe('failures', () => {
  test('of the receiver are told once and thrown at the end', async () => {
    const failures: string[] = [];
    const stream = new TextStream({
      tokenizer: bytewise,
      stop: [],
      onText: () => {
        throw new Error('the receiver broke');
      },
      onFailure: () => failures.push('failed'),
    });
    stream.push(flat([97]));
    await turn();
    stream.push(flat([98]));
    await expect(stream.finish([['ab']])).rejects.toThrow('the receiver broke');
    expect(failures).toEqual(['failed']);
  });

  test('nothing comes after stop()', async () => {
    const { pieces, stream } = collect();
    stream.push(flat([97]));
    stream.stop();
    await turn();
    expect(pieces).toEqual([]);
  });
});
