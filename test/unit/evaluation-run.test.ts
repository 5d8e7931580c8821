// An evaluation without a model: wherever a killed one ends, going on gives the bytes of an uninterrupted one and
// asks no finished problem again; numbers by hand; two evaluations compared in pairs.
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { loadConfig } from '../../lib/config/index.js';
import { readPassRates } from '../../lib/data/pass-rates.js';
import { benchmarksOf } from '../../lib/evaluation/benchmarks.js';
import { compareEvaluations } from '../../lib/evaluation/compare.js';
import { runEvaluation } from '../../lib/evaluation/run.js';
import type { Scorer } from '../../lib/reward/types.js';
import { judgeRounds } from '../../lib/train/evaluate.js';
import type { Problem } from '../../lib/train/types.js';

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'archer-eval-'));
});
afterEach(() => rmSync(dir, { recursive: true }));

const entry = (name: string, n: number) => ({ name, files: [`${name}.jsonl`], n, reward: 'exact' as const });

function problem(index: number): Problem {
  const text = `Say ${index}\u2028é`;
  const row = {
    index,
    id: `id${index}`,
    prompt: [{ role: 'user', content: text }],
    groundTruth: String(index % 2),
    dataSource: 'source',
    extraInfo: {},
    origin: { file: 'f', line: index + 1 },
  };
  return { promptKey: index, row, text };
}

/** Three rounds of `a` (two problems each, the last one alone), one of `b`. Sample s of every problem says s % 2. */
async function evaluate(out: string, options: { seed?: number; asked?: string[]; failAfter?: number } = {}) {
  const { seed = 1, asked = [], failAfter = Infinity } = options;
  const { config } = loadConfig({
    object: { trainer: { seed }, reward: { workers: 1 }, val: { benchmarks: [entry('a', 4), entry('b', 2)] } },
  });
  const loaded = benchmarksOf(config).map((benchmark, i) => ({
    benchmark,
    problems: Array.from({ length: i === 0 ? 5 : 3 }, (_, index) => problem(index)),
    hash: benchmark.name,
    report: [],
  }));
  return runEvaluation({
    config,
    loaded,
    out: join(dir, out),
    signal: new AbortController().signal,
    contestant: {
      name: 'test',
      identity: { model: 'test' },
      responsesPerRound: 8,
      ask:
        ({ name, sampling }) =>
        async (problems) => {
          if (asked.length >= failAfter) throw new Error('the power is cut');
          asked.push(...problems.map(({ promptKey }) => `${name}/${promptKey}`));
          return problems.map(() =>
            Array.from({ length: sampling.n }, (_, sample) => ({
              text: `\\boxed{${sample % 2}}`,
              tokens: 3 + sample,
              finish: sample === 3 ? 'length' : 'stop',
            })),
          );
        },
    },
  });
}

const read = (out: string, name: string) => readFileSync(join(dir, out, name));
const contents = (out: string) =>
  Object.fromEntries(readdirSync(join(dir, out)).map((name) => [name, read(out, name).toString('utf8')]));

describe('the numbers', () => {
  test('by benchmark and over both', async () => {
    const { benchmarks, total } = await evaluate('out');
    expect(benchmarks[0]).toMatchObject({
      name: 'a',
      problems: 5,
      n: 4,
      metrics: { 'avg@4': 0.5, 'pass@1': 0.5, 'pass@2': expect.closeTo(5 / 6, 12), 'pass@4': 1, 'maj@4': 0.6 },
      mean_response_length: 4.5,
      truncated: 0.25,
      outcomes: { ok: 10, wrong: 10 },
    });
    expect(benchmarks[0]?.metrics['maj@4/ci_low']).toBeLessThan(0.6);
    expect(total).toMatchObject({ problems: 8, responses: 26, avg: { mean: 0.5, low: 0.5, high: 0.5 } });
    const [rate] = read('out', 'pass_rates.jsonl').toString().split('\n');
    expect(JSON.parse(rate!)).toMatchObject({
      benchmark: 'a',
      prompt_id: 'id0',
      source: 'source',
      index: 0,
      n: 4,
      num_correct: 2,
      pass_rate: 0.5,
    });
    expect(readPassRates(join(dir, 'out/pass_rates.jsonl')).of({ ...problem(4).row, index: 99 })).toBe(0.5);
    const [line] = read('out', 'responses.jsonl').toString().split('\n');
    expect(JSON.parse(line!)).toEqual({
      id: 'a/0/0',
      data_source: 'source',
      prompt: 'Say 0\u2028é',
      ground_truth: '0',
      response: '\\boxed{0}',
      outcome: 'ok',
      score: 1,
      answer: '0',
      vote: 0,
      tokens: 3,
      finish: 'stop',
    });
  });
});

describe('going on', () => {
  test('from whatever a kill leaves of the file', async () => {
    await evaluate('whole');
    const whole = contents('whole');
    const responses = read('whole', 'responses.jsonl');
    const lines = responses.toString('utf8').split(/(?<=\n)/);
    const [first, second] = [8, 16].map((count) => Buffer.byteLength(lines.slice(0, count).join('')));
    const rounds = [['a/0', 'a/1'], ['a/2', 'a/3'], ['a/4'], ['b/0', 'b/1', 'b/2']];
    const cuts: [number, number][] = [
      [0, 0],
      [first! - 1, 0],
      [first!, 1],
      [second! + 200, 2],
      [responses.length - 1, 3],
      [responses.length, 4],
    ];
    for (const [bytes, wholeRounds] of cuts) {
      rmSync(join(dir, 'cut'), { recursive: true, force: true });
      mkdirSync(join(dir, 'cut'));
      writeFileSync(join(dir, 'cut/evaluation.json'), whole['evaluation.json']!);
      writeFileSync(join(dir, 'cut/responses.jsonl'), responses.subarray(0, bytes));
      const asked: string[] = [];
      await evaluate('cut', { asked });
      expect(contents('cut')).toEqual(whole);
      expect(asked).toEqual(rounds.slice(wholeRounds).flat());
    }
  });

  test('after a failure in the middle', async () => {
    await evaluate('whole');
    await expect(evaluate('parts', { failAfter: 4 })).rejects.toThrow('the power is cut');
    const asked: string[] = [];
    await evaluate('parts', { asked });
    expect(asked).toEqual(['a/4', 'b/0', 'b/1', 'b/2']);
    expect(contents('parts')).toEqual(contents('whole'));
  });

  test('another seed is another evaluation; an altered file is no evaluation', async () => {
    await evaluate('out');
    await expect(evaluate('out', { seed: 2 })).rejects.toMatchObject({
      code: 'ARCHER_E_CONFIG',
      message: expect.stringContaining('seed was 1, is 2'),
    });
    writeFileSync(join(dir, 'out/responses.jsonl'), '{"id":"a/7/0"}\n');
    await expect(evaluate('out')).rejects.toMatchObject({
      code: 'ARCHER_E_DATA',
      message: expect.stringContaining('line 1: a/0/0 belongs here, and there is a/7/0'),
    });
  });
});

describe('a paired comparison', () => {
  const rates = (folder: string, scores: number[], id = (i: number) => `id${i}`) => {
    mkdirSync(join(dir, folder));
    const lines = scores.map((score, index) => JSON.stringify({ benchmark: 'a', index, prompt_id: id(index), score }));
    writeFileSync(join(dir, folder, 'pass_rates.jsonl'), `${lines.join('\n')}\n`);
    return join(dir, folder);
  };

  test('has a narrow interval where both models find the same problems hard', async () => {
    const hard = Array.from({ length: 100 }, (_, i) => (i % 2) * 0.8);
    const first = rates('first', hard);
    const second = rates(
      'second',
      hard.map((score, i) => score + (i % 4 === 0 ? 0.2 : 0)),
    );
    const { benchmarks, difference } = await compareEvaluations([first, second], 1);
    const [one] = benchmarks;
    expect(one!.difference.mean).toBeCloseTo(0.05, 12);
    expect(one!.difference.low).toBeGreaterThan(0.02);
    expect(one!.first.high).toBeGreaterThan(one!.second.low);
    expect(difference.mean).toBeCloseTo(0.05, 12);
  });

  test('needs the same problems', async () => {
    const first = rates('first', [1, 0]);
    const fewer = rates('fewer', [1]);
    await expect(compareEvaluations([first, fewer], 1)).rejects.toThrow(
      /first has the problem a\/1 \(id1\), .*fewer has not/,
    );
    const other = rates('other', [1, 0], (i) => `other${i}`);
    await expect(compareEvaluations([first, other], 1)).rejects.toMatchObject({ code: 'ARCHER_E_DATA' });
  });
});

test('while a verdict is waited for, progress names the response', async () => {
  const verdict = { score: 1, outcome: 'ok' as const };
  const scorer: Scorer = {
    description: 'exact',
    verifierFor: () => 'exact',
    async score(inputs, options) {
      options?.onProgress?.({ done: 0, total: 4, waiting: { index: 3, seconds: 12, stage: 'test 1 of 2' } });
      return inputs.map(() => verdict);
    },
    async dispose() {},
  };
  const details: (string | undefined)[] = [];
  const rounds = judgeRounds({
    problems: [problem(0), problem(1)],
    ask: async (problems) => problems.map(() => [0, 1].map(() => ({ text: 'a', tokens: 1, finish: 'stop' }))),
    scorer,
    perRound: 2,
    onProgress: (_done, detail) => details.push(detail),
  });
  for await (const round of rounds) expect(round).toHaveLength(2);
  expect(details).toContain('waiting 12 s for response 2 to f line 2, test 1 of 2');
});
