// The math verifier: tables of cases by rule and by kind of answer, the reference's own grader, and the golden verdicts
// where they are. Hostile inputs: reward-math-hostile.test.ts.

import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { verifyMath } from '../../lib/reward/math.js';
import { equalToSixPlaces, nthRoot, parseDecimal, power, type Rational, rational } from '../../lib/reward/rational.js';
import { type MathCase, mathCases } from './fixtures/rewards/math-cases.js';
import { mathKinds } from './fixtures/rewards/math-kinds.js';
import { mathRules } from './fixtures/rewards/math-rules.js';

const verify = (groundTruth: string | string[], response: string) =>
  verifyMath({ prompt: '', response, groundTruth, extraInfo: {}, dataSource: '' });

const failures = (cases: MathCase[]) =>
  cases
    .map(([gold, response, score]) => ({ gold, response, score, verdict: verify(gold, response) }))
    .filter(({ score, verdict }) => verdict.score !== score);

test(`${mathCases.length} cases`, () => expect(failures(mathCases)).toEqual([]));

describe('rule', () => {
  test.each(Object.entries(mathRules))('%s', (_rule, cases) => {
    expect(cases.length).toBeGreaterThanOrEqual(12);
    expect(failures(cases)).toEqual([]);
  });
});

test(`${mathKinds.length} answers of every kind`, () => expect(failures(mathKinds)).toEqual([]));

test('outcomes: wrong and parse_error are told apart, and the answer is shown', () => {
  expect(verify('5', '\\boxed{6}')).toEqual({ score: 0, outcome: 'wrong', extracted: '6' });
  expect(verify('5', '\\boxed{}')).toMatchObject({ outcome: 'wrong', extracted: '' });
  expect(verify('5', '\\boxed{5')).toMatchObject({ outcome: 'parse_error', message: 'the last box is not closed' });
  expect(verify('5', 'I give up.')).toMatchObject({ outcome: 'parse_error', message: 'the response holds no answer' });
  expect(verify('5', '\\boxed{9^{9^{9^9}}}')).toMatchObject({
    outcome: 'parse_error',
    message: 'a power gets too large',
  });
  expect(verify('5', `\\boxed{${'('.repeat(200)}5${')'.repeat(200)}}`)).toMatchObject({ outcome: 'parse_error' });
  expect(verify('5', '\\boxed{5}')).toEqual({ score: 1, outcome: 'ok', extracted: '5' });
});

describe('rationals', () => {
  const fraction = fc.tuple(fc.bigInt(-(10n ** 12n), 10n ** 12n), fc.bigInt(1n, 10n ** 9n));

  test('every fraction equals its multiples and its mixed form, and not its neighbour', () => {
    fc.assert(
      fc.property(fraction, fc.bigInt(2n, 99n), ([n, d], k) => {
        const gold = `\\frac{${n}}{${d}}`;
        expect(verify(gold, `\\boxed{\\frac{${n * k}}{${d * k}}}`).score).toBe(1);
        expect(verify(gold, `\\boxed{${n}/${d}}`).score).toBe(1);
        expect(verify(gold, `\\boxed{\\frac{${n * k + 1n}}{${d * k}}}`).score).toBe(0);
        if (n > 0n) expect(verify(gold, `\\boxed{${n / d}\\frac{${n % d}}{${d}}}`).score).toBe(1);
      }),
      { numRuns: 200 },
    );
  });

  test('roots, powers, decimals', () => {
    const r = (n: number, d = 1): Rational => rational(BigInt(n), BigInt(d));
    expect(nthRoot(r(8, 27), 3)).toEqual(r(2, 3));
    expect(nthRoot(r(2), 2)).toBeUndefined();
    expect(nthRoot(r(-8), 3)).toEqual(r(-2));
    expect(power(r(-1), 10n ** 30n + 1n)).toEqual(r(-1));
    expect(parseDecimal('-1.50e-1')).toEqual(r(-3, 20));
    expect(parseDecimal('1.2.3')).toBeUndefined();
    expect(equalToSixPlaces(r(1, 3), parseDecimal('0.333333') as Rational)).toBe(true);
    expect(equalToSixPlaces(r(25, 10 ** 8), r(31, 10 ** 8))).toBe(false);
    expect(equalToSixPlaces(r(0), r(1, 10 ** 8))).toBe(false);
  });
});

describe('mode archer', () => {
  const R = String.raw;
  const grade = (groundTruth: string | string[], response: string) =>
    verifyMath({ prompt: '', response, groundTruth, extraInfo: {}, dataSource: '' }, { mode: 'archer' }).score;

  test('the text after the first </think>, its last box, a truth that is a string, a list, or boxed itself', () => {
    expect(grade('5', R`<think>\boxed{5}</think>\boxed{6}`)).toBe(0);
    expect(grade('5', R`<think>\boxed{6}</think>\boxed{4}, no: \boxed{5}`)).toBe(1);
    expect(grade(['4', '5'], R`\boxed{5}`)).toBe(1);
    expect(grade(R`\boxed{\frac{1}{2}}`, R`\boxed{\frac{1}{2}}`)).toBe(1);
    expect(grade('', R`\boxed{}`)).toBe(0);
  });

  test('equal after textual normalisation', () => {
    for (const answer of [
      '\\dfrac12',
      '\\frac{1}{2}',
      '0.5',
      '1/2',
      'x=\\frac{1}{2}',
      '\\text{1/2}',
      '\\frac12\\text{ cm}',
    ]) {
      expect([answer, grade('\\frac{1}{2}', `\\boxed{${answer}}`)]).toEqual([answer, 1]);
    }
    expect(grade('2\\sqrt{3}', R`\boxed{2\sqrt3}`)).toBe(1);
    expect(grade('12', R`\boxed{12^\circ}`)).toBe(1);
    expect(grade('35', R`\boxed{35\%}`)).toBe(1);
  });

  test('equal symbolically, element by element', () => {
    expect(grade('x^2-1', R`\boxed{(x-1)(x+1)}`)).toBe(1);
    expect(grade('(1,x^2-1)', R`\boxed{(1, (x-1)*(x+1))}`)).toBe(0);
    expect(grade('(1.5,\\frac{2}{3}x)', R`\boxed{(\frac{3}{2}, 2x/3)}`)).toBe(1);
    expect(grade('(1,2)', R`\boxed{[1,2]}`)).toBe(0);
    expect(grade('\\frac{19}{4}', R`\boxed{4\frac{3}{4}}`)).toBe(1);
    expect(grade('x^2-1', R`\boxed{x^2+1}`)).toBe(0);
  });

  test('without a normal form in common the extracted text must be a ground truth', () => {
    expect(grade('42', 'The answer is 42.')).toBe(1);
    expect(grade('42', 'The answer is 42.0.')).toBe(0);
  });

  test('what Math-Verify would see, it does not: sets in another order, percentages, unreduced fractions, unions', () => {
    expect(grade('\\{1,2\\}', R`\boxed{2,1}`)).toBe(0);
    expect(grade('35\\%', R`\boxed{0.35}`)).toBe(0);
    expect(grade('\\frac{1}{2}', R`\boxed{\frac{2}{4}}`)).toBe(0);
    expect(grade('[0,1]\\cup[2,3]', R`\boxed{[2,3]\cup[0,1]}`)).toBe(0);
  });
});

const golden = '../shared/data/math-verdicts/dev.jsonl';
const withGolden = existsSync(golden) ? test : test.skip;
if (!existsSync(golden)) console.log(`skipped: the golden verdicts, because there is no ${golden}`);

withGolden('the golden verdicts: at least 98 % right, and no reward that is not deserved', () => {
  const rows = readFileSync(golden, 'utf8')
    .trim()
    .split('\n')
    .map(
      (line) => JSON.parse(line) as { id: string; response: string; ground_truth: string | string[]; label: boolean },
    );
  const judged = rows.map((row) => ({ ...row, given: verify(row.ground_truth, row.response).score === 1 }));
  expect(judged.filter((row) => row.given && !row.label).map((row) => row.id)).toEqual([]);
  expect(judged.filter((row) => row.given === row.label).length / rows.length).toBeGreaterThanOrEqual(0.98);
});
