// The scorer: built-in verifiers, functions, and modules in worker processes that may hang, die or return nonsense.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, describe, expect, test } from '@jest/globals';
import { loadDataset } from '../../lib/data/dataset.js';
import { createScorer, type CreateScorerOptions } from '../../lib/reward/score.js';
import { selfTestReward } from '../../lib/reward/self-test.js';
import { countOutcomes, type RewardInput, type Scorer } from '../../lib/reward/types.js';

const fixture = (name: string) => fileURLToPath(new URL(`./fixtures/rewards/${name}`, import.meta.url));
const input = (response: string, more: Partial<RewardInput> = {}): RewardInput => ({
  prompt: 'q',
  response,
  groundTruth: '5',
  extraInfo: { level: 7 },
  dataSource: 'unit',
  ...more,
});
const inputs = (...responses: string[]) => responses.map((response) => input(response));

const open: Scorer[] = [];
async function scorer(options: CreateScorerOptions): Promise<Scorer> {
  const made = await createScorer(options);
  open.push(made);
  return made;
}
afterEach(async () => {
  for (const made of open.splice(0)) await made.dispose();
});

describe('a module in workers', () => {
  const pool = (more: Partial<CreateScorerOptions> = {}) =>
    scorer({ path: fixture('by-command.mjs'), timeoutSeconds: 0.6, workers: 2, ...more });

  test('verdicts stand in the order of the inputs, and progress counts up', async () => {
    const seen: number[] = [];
    const numbers = Array.from({ length: 40 }, (_, i) => String(i / 8));
    const verdicts = await (await pool()).score(inputs(...numbers), { onProgress: ({ done }) => seen.push(done) });
    expect(verdicts.map((verdict) => verdict.score)).toEqual(numbers.map(Number));
    expect(seen).toEqual(Array.from({ length: 40 }, (_, i) => i + 1));
  });

  test('a hang, a promise that never settles, process.exit, a killed process and an exception cost that response only', async () => {
    const made = await pool();
    const verdicts = await made.score(inputs('1', 'hang', '2', 'exit', '3', 'never', '4', 'kill', '5', 'throw', '6'));
    expect(verdicts.map((verdict) => `${verdict.outcome} ${verdict.score}`)).toEqual([
      ...['ok 1', 'timeout 0', 'ok 2', 'crash 0', 'ok 3', 'timeout 0', 'ok 4', 'crash 0', 'ok 5', 'crash 0', 'ok 6'],
    ]);
    expect(verdicts[1]?.message).toBe('no verdict within 0.6 s');
    expect(verdicts[3]?.message).toMatch(/ended: exit code 3/);
    expect(verdicts[7]?.message).toMatch(/ended: signal SIGKILL/);
    expect(verdicts[9]?.message).toBe('TypeError: no such luck');
    expect(countOutcomes(verdicts)).toEqual({ ok: 6, wrong: 0, parse_error: 0, timeout: 2, crash: 3 });
  });

  test('what is no finite number is a crash with its reason; parts of a verdict are completed', async () => {
    const verdicts = await (await pool()).score(
      inputs('nan', 'infinity', 'text', 'nothing', 'parse', '-1', '0.5', 'verl'),
    );
    expect(verdicts.map((verdict) => verdict.outcome)).toEqual([
      'crash',
      'crash',
      'crash',
      'crash',
      'parse_error',
      'wrong',
      'ok',
      'ok',
    ]);
    expect(verdicts.slice(0, 4).map((verdict) => verdict.message)).toEqual([
      expect.stringContaining('the score NaN'),
      expect.stringContaining('the score Infinity'),
      expect.stringContaining('the string "yes"'),
      expect.stringContaining('undefined (is a return missing?)'),
    ]);
    expect(verdicts[4]).toEqual({ score: 0, outcome: 'parse_error', message: 'no answer' });
  });

  test('an exception outside of any call does not touch the next response', async () => {
    const verdicts = await (await pool({ workers: 1 })).score(inputs('stray', '1', '2'));
    expect(verdicts.map((verdict) => verdict.score)).toEqual([1, 1, 2]);
  });

  test('a killed worker is replaced, a healthy one is kept, and dispose ends them', async () => {
    const made = await pool({ workers: 1 });
    const [first, again] = await made.score(inputs('pid', 'pid'));
    const [, , fresh] = await made.score(inputs('pid', 'hang', 'pid'));
    expect(again?.score).toBe(first?.score);
    expect(fresh?.score).not.toBe(first?.score);
    await made.dispose();
    await made.dispose();
    await new Promise((done) => setTimeout(done, 100));
    expect(() => process.kill(fresh?.score as number, 0)).toThrow(/ESRCH/);
    await expect(made.score(inputs('1'))).rejects.toMatchObject({ code: 'ARCHER_E_DISPOSED' });
  });

  test('an abort ends a hang at once, and the pool goes on afterwards', async () => {
    const made = await pool({ timeoutSeconds: 30 });
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 100);
    await expect(made.score(inputs('hang', 'hang', '1'), { signal: controller.signal })).rejects.toMatchObject({
      code: 'ARCHER_E_ABORTED',
    });
    expect((await made.score(inputs('3')))[0]?.score).toBe(3);
  });

  test('CommonJS modules work', async () => {
    const verdicts = await (await scorer({ path: fixture('common.cjs') })).score(inputs('a', 'b'));
    expect(verdicts.map((verdict) => verdict.outcome)).toEqual(['ok', 'wrong']);
  });

  test.each([
    ['absent.mjs', /absent\.mjs does not exist; check reward\.path/],
    ['no-default.mjs', /no default export that is a function \(it exports reward\)/],
    ['throws.mjs', /cannot be used: Error: cannot start/],
  ])('%s is refused before anything starts', async (name, message) => {
    await expect(createScorer({ path: fixture(name) })).rejects.toMatchObject({
      code: 'ARCHER_E_REWARD',
      message: expect.stringMatching(message),
    });
  });
});

describe('functions and built-in verifiers', () => {
  test('math judges by its own rules, or in mode archer as the reference does', async () => {
    const percent = input('\\boxed{0.35}', { groundTruth: '35\\%' });
    expect((await (await scorer({ name: 'math' })).score([percent]))[0]?.outcome).toBe('ok');
    const archer = await scorer({ name: 'math', math: { mode: 'archer' }, workers: 1 });
    expect((await archer.score([percent, ...inputs('\\boxed{5}')])).map(({ outcome }) => outcome)).toEqual([
      'wrong',
      'ok',
    ]);
  });

  test('a function in this process: sync, async, throwing, and never settling', async () => {
    const answers: Record<string, () => unknown> = {
      a: () => true,
      b: async () => 0.25,
      c: () => {
        throw new Error('broken');
      },
      d: () => new Promise(() => {}),
    };
    const made = await scorer({ fn: ({ response }) => answers[response]?.() as number, timeoutSeconds: 0.1 });
    const verdicts = await made.score(inputs('a', 'b', 'c', 'd'));
    expect(verdicts.map((verdict) => [verdict.outcome, verdict.score])).toEqual([
      ['ok', 1],
      ['ok', 0.25],
      ['crash', 0],
      ['timeout', 0],
    ]);
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 20);
    await expect(
      (await scorer({ fn: () => new Promise<number>(() => {}), timeoutSeconds: 30 })).score(inputs('a'), {
        signal: controller.signal,
      }),
    ).rejects.toMatchObject({ code: 'ARCHER_E_ABORTED' });
  });

  test('the data source chooses the verifier', async () => {
    const made = await scorer({});
    const verdicts = await made.score([
      input('She pays 5.', { dataSource: 'openai/gsm8k' }),
      input('\\boxed{\\frac{10}{2}}', { dataSource: 'deepscaler' }),
      input('\\boxed{5}', { dataSource: 'codecontests' }),
    ]);
    expect(verdicts.map((verdict) => verdict.message ?? verdict.score)).toEqual([
      1,
      1,
      'the response holds no code block',
    ]);
  });

  test('exact: text and nothing more', async () => {
    const made = await scorer({ name: 'exact' });
    const cases: [string, string | string[], string][] = [
      [' left  turn. ', 'left turn', 'ok'],
      ['I say \\boxed{left turn}, finally.', ['right', 'left turn'], 'ok'],
      ['Answer: left turn', 'left turn', 'ok'],
      ['<think>right</think>left', 'left', 'ok'],
      ['Left', 'left', 'wrong'],
      ['5.0', '5', 'wrong'],
      ['', '', 'parse_error'],
      ['\\boxed{left', 'left', 'parse_error'],
    ];
    const verdicts = await made.score(cases.map(([response, groundTruth]) => input(response, { groundTruth })));
    expect(verdicts.map((verdict) => verdict.outcome)).toEqual(cases.map(([, , outcome]) => outcome));
  });

  test('numeric: one number, exactly', async () => {
    const made = await scorer({ name: 'numeric' });
    const cases: [string, string, string][] = [
      ['48/2 = 24 clips. 48 + 24 = 72', '72', 'ok'],
      ['so it costs $1,450.00.\n#### 1450', '1,450', 'ok'],
      ['\\boxed{x = \\$72\\text{ dollars}}', '72', 'ok'],
      ['\\boxed{\\frac{3}{4}}', '0.75', 'ok'],
      ['\\boxed{1 3/4}', '1.75', 'ok'],
      ['\\boxed{75\\%}', '0.75', 'ok'],
      ['#### -3', '-3', 'ok'],
      ['the range 3-5', '5', 'ok'],
      ['\\boxed{100000000000000000000001}', '100000000000000000000000', 'wrong'],
      ['\\boxed{0.33}', '1/3', 'wrong'],
      ['\\boxed{5!}', '5', 'wrong'],
      ['\\boxed{\\sqrt{5}}', '5', 'wrong'],
      ['\\boxed{4, 5}', '5', 'wrong'],
      ['\\boxed{3\\%}', '300\\%', 'wrong'],
      ['<think>5</think>no idea', '5', 'parse_error'],
      ['\\boxed{5', '5', 'parse_error'],
    ];
    const verdicts = await made.score(cases.map(([response, groundTruth]) => input(response, { groundTruth })));
    expect(verdicts.map((verdict, i) => [cases[i]?.[0], verdict.outcome])).toEqual(
      cases.map(([response, , outcome]) => [response, outcome]),
    );
  });

  test('wrong options', async () => {
    const refused = (options: object) => expect(createScorer(options as CreateScorerOptions)).rejects;
    await refused({ name: 'prose' }).toThrow(/no built-in verifier "prose"; there are math, numeric, exact, code/);
    await refused({ name: 'math', fn: () => 1 }).toThrow(/not several/);
    await refused({ timeoutSeconds: 0 }).toThrow(/timeout_seconds is 0/);
  });
});

describe('self-test', () => {
  const folder = mkdtempSync(join(tmpdir(), 'archer-reward-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const data = async (...answers: (string | string[])[]) => {
    const path = join(folder, 'rows.jsonl');
    writeFileSync(path, answers.map((answer) => `${JSON.stringify({ prompt: 'q', answer })}\n`).join(''));
    return loadDataset({ files: [path] });
  };

  test('passes where the gold answers are accepted, and looks at a sample', async () => {
    const rows = await data('5', '\\frac{1}{2}', ['x=4', '4'], '\\boxed{7}', 'C', '\\text{even}', '[-2,5)');
    expect(await selfTestReward(await scorer({ name: 'math' }), rows)).toEqual({ rows: 7 });
    expect(await selfTestReward(await scorer({ name: 'math' }), rows, { rows: 3 })).toEqual({ rows: 3 });
  });

  test('a verifier that does not fit the data is named with the row and what came back', async () => {
    const made = await scorer({ name: 'numeric' });
    await expect(selfTestReward(made, await data('5', '\\sqrt{2}'))).rejects.toMatchObject({
      code: 'ARCHER_E_REWARD',
      message: expect.stringMatching(
        /numeric\) refuses the row's own gold answer: "\\\\boxed\{\\\\sqrt\{2\}\}" → wrong 0.*rows\.jsonl, line 2.*reward\.self_test: off/,
      ),
    });
  });

  test('functions: always 0, always 1 and always throwing are refused; bare or boxed gold is enough', async () => {
    const rows = await data('5', '7');
    const tried = async (fn: NonNullable<CreateScorerOptions['fn']>) =>
      selfTestReward(await scorer({ fn }), rows, { custom: true });
    await expect(tried(() => 0)).rejects.toThrow(/refuses the row's own gold answer/);
    await expect(tried(() => 1)).rejects.toThrow(/rewards a wrong answer/);
    await expect(
      tried(() => {
        throw new Error('broken');
      }),
    ).rejects.toThrow(/crash 0 \(broken\)/);
    expect(await tried(({ response, groundTruth }) => response === groundTruth)).toEqual({ rows: 2 });
    expect(await tried(({ response, groundTruth }) => (response === `\\boxed{${groundTruth}}` ? 2 : -1))).toEqual({
      rows: 2,
    });
  });
});
