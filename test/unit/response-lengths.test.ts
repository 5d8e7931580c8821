// Expected lengths: what the trainer remembers of a prompt's responses, and that the rollout engine is told.
import { expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config/index.js';
import { createSampler } from '../../lib/data/sampler.js';
import { createScorer } from '../../lib/reward/score.js';
import type { RolloutEngine } from '../../lib/rollout/types.js';
import { collectGroups } from '../../lib/train/collect.js';
import { ResponseLengths } from '../../lib/train/response-lengths.js';
import { Stopwatch } from '../../lib/train/stopwatch.js';
import type { TrainPrompt } from '../../lib/train/types.js';

const promptOf = (promptKey: number): TrainPrompt => ({
  promptKey,
  ids: Int32Array.of(1, 2),
  row: { index: promptKey, id: '', prompt: [], groundTruth: '', dataSource: '', extraInfo: {}, origin: { file: '', line: 1 } },
  text: '',
});
const groupOf = (lengths: number[]) => ({
  responses: lengths.map((length) => ({
    ids: new Int32Array(length),
    logProbs: new Float32Array(length),
    entropies: new Float32Array(length),
    finish: 'stop' as const,
    text: '',
  })),
});

test('a prompt is expected to be answered as it was last, in mean', () => {
  const lengths = new ResponseLengths();
  lengths.record([
    { prompt: promptOf(7), ...groupOf([10, 20]) },
    { prompt: promptOf(3), ...groupOf([5]) },
  ]);
  lengths.record([{ prompt: promptOf(7), ...groupOf([4, 5]) }]);
  const prompts = [promptOf(3), promptOf(4), promptOf(7)];
  expect(Array.from(lengths.of(prompts))).toEqual([5, Number.NaN, 4.5]);
  const restored = new ResponseLengths(JSON.parse(JSON.stringify(lengths)));
  expect(Array.from(restored.of(prompts))).toEqual([5, Number.NaN, 4.5]);
});

test('sampling passes the expected lengths in the order of the prompts', async () => {
  const { config } = loadConfig({
    object: { data: { train_batch_size: 3 }, rollout: { n: 2 }, algorithm: { filter_groups: { enable: false } } },
  });
  const asked: { keys: number[]; lengths: number[] }[] = [];
  const engine: RolloutEngine = {
    generate: async ({ prompts, expectedLengths = [] }) => {
      asked.push({ keys: prompts.map(({ promptKey }) => promptKey), lengths: Array.from(expectedLengths) });
      return prompts.map((prompt) => ({ prompt, ...groupOf([1, 3]) }));
    },
  };
  const responseLengths = new ResponseLengths({ 1: 30, 2: 90 });
  await collectGroups(1, {
    config,
    engine,
    scorer: await createScorer({ fn: () => 1 }),
    sampler: createSampler({ size: 3, seed: 1, shuffle: true }),
    prompts: [promptOf(0), promptOf(1), promptOf(2)],
    responseLengths,
    stopwatch: new Stopwatch(),
    signal: new AbortController().signal,
    progress: () => {},
  });
  expect(asked).toHaveLength(1);
  expect([...asked[0]!.keys].sort()).toEqual([0, 1, 2]);
  expect(asked[0]!.lengths).toEqual(asked[0]!.keys.map((key) => [Number.NaN, 30, 90][key]));
});
