// Tokens and text of a generation while it runs.
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Policy, type TextPiece } from '../../lib/index.js';
import { packIds } from '../../lib/rollout/local-engine.js';

let policy: Policy;
beforeAll(async () => {
  policy = await Policy.load('bundled', { numThreads: 1 });
});
afterAll(() => policy.dispose());

const prompts = ['Compute 3 + 4 * 2.', 'Compute 17 - 5.', 'Compute 2 * 2 * 2.'];

test('pieces of every response add up to its text, and come while others are still sampled', async () => {
  const pieces: TextPiece[] = [];
  let isDone = false;
  let early = 0;
  const onText = (piece: TextPiece) => {
    pieces.push(piece);
    if (!isDone) early += 1;
  };
  const options = { n: 8, temperature: 3, maxNewTokens: 300, seed: 7 };
  const responses = await policy.generate(prompts, {
    ...options,
    onText,
    onProgress: (done, total) => {
      isDone = done >= total;
    },
  });
  const joined = prompts.map((_, prompt) =>
    Array.from({ length: 8 }, (_, sample) =>
      pieces
        .filter((piece) => piece.prompt === prompt && piece.sample === sample)
        .map(({ text }) => text)
        .join(''),
    ),
  );
  expect(joined).toEqual(responses.map((group) => group.map(({ text }) => text)));
  expect(pieces.length).toBeGreaterThan(3 * 8);
  expect(early).toBeGreaterThan(0);
  const silent = await policy.generate(prompts, options);
  expect(silent.map((group) => group.map(({ ids }) => Array.from(ids)))).toEqual(
    responses.map((group) => group.map(({ ids }) => Array.from(ids))),
  );
});

test('tokens come as (prompt, sample, id), each once and in order', async () => {
  const { ids, offsets } = packIds([Int32Array.of(1, 30, 40), Int32Array.of(1, 50)]);
  const tokens: number[] = [];
  const request = {
    promptIds: ids,
    promptOffsets: offsets,
    promptKeys: Uint32Array.of(4, 9),
    numSamples: 2,
    sampleOffset: 5,
    seed: 1,
    step: 0,
    temperature: 1,
    topP: 1,
    topK: -1,
    minP: 0,
    maxNewTokens: 9,
    stopTokenIds: new Int32Array(),
    maxSlots: 3,
    kvBudgetBytes: 0,
  };
  const generation = await policy.weights.generate(request, { onTokens: (some) => tokens.push(...some) });
  const of = (prompt: number, sample: number) =>
    tokens.flatMap((_, i) => (i % 3 === 0 && tokens[i] === prompt && tokens[i + 1] === sample ? [tokens[i + 2]] : []));
  expect(tokens).toHaveLength(3 * generation.ids.length);
  for (const [i, [prompt, sample]] of (
    [
      [0, 0],
      [0, 1],
      [1, 0],
      [1, 1],
    ] as const
  ).entries()) {
    expect(of(prompt, sample)).toEqual(
      Array.from(generation.ids.slice(generation.offsets[i], generation.offsets[i + 1])),
    );
  }
});

test('a receiver that throws ends the generation with what it threw, and the policy goes on', async () => {
  const failing = policy.generate(prompts, {
    n: 64,
    temperature: 5,
    maxNewTokens: 400,
    onText: () => {
      throw new RangeError('the receiver broke');
    },
  });
  await expect(failing).rejects.toThrow('the receiver broke');
  expect(await policy.generate(['Compute 1 + 1.'])).toHaveLength(1);
});

test('after an abort no text comes any more', async () => {
  const abort = new AbortController();
  let pieces = 0;
  const job = policy.generate(prompts, {
    n: 64,
    temperature: 5,
    maxNewTokens: 400,
    signal: abort.signal,
    onText: () => {
      pieces += 1;
      abort.abort();
    },
  });
  await expect(job).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
  const then = pieces;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(pieces).toBe(then);
});
