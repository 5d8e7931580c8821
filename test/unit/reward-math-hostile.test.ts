// 1,000 answers that were made to hang, crash or fool the math verifier: bounded in counted steps (no clock), a verdict
// for each, and never a reward.

import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { verifyMath } from '../../lib/reward/math.js';
import { Budget } from '../../lib/reward/rational.js';

const golds = ['7919', 'x^2+7919', '\\{7919,2\\}', '(7919,2]', '\\text{prime}', 'H', '\\frac{\\pi}{7919}', 'x>7919'];
const maxSteps = 50_000;

class CountingBudget extends Budget {
  calls = 0;

  override spend(units = 1): void {
    this.calls += 1;
    super.spend(units);
  }
}

function judge(groundTruth: string | string[], response: string) {
  const budget = new CountingBudget(maxSteps);
  const verdict = verifyMath({ prompt: '', response, groundTruth, extraInfo: {}, dataSource: '' }, { budget });
  // Every call costs a step or more; each gold may make one more that finds the budget empty.
  expect(budget.calls).toBeLessThanOrEqual(maxSteps + golds.length);
  return verdict;
}

const box = (content: string) => `\\boxed{${content}}`;
const R = String.raw;

/** [what is repeated, what closes it]: nested n deep around a value. */
const nestings: [string, string][] = [
  ['(', ')'],
  ['[', ']'],
  ['{', '}'],
  [R`\{`, R`\}`],
  [R`\left(`, R`\right)`],
  [R`\sqrt{`, '}'],
  [R`\frac{1}{1+`, '}'],
  ['2^{', '}'],
  ['9^{9^', '}'],
  ['|', '|'],
  [R`\lfloor `, R` \rfloor`],
  [R`\text{`, '}'],
  [R`\mathbf{`, '}'],
  [R`\overline{`, '}'],
  [R`\sin(`, ')'],
  [R`\ln(`, ')'],
  ['-(', ')'],
  ['(1,', ')'],
  [R`\begin{pmatrix}`, R`\end{pmatrix}`],
  [R`\sum_{k=1}^{200}(`, ')'],
  [R`\binom{900}{`, '}'],
  ['x_{', '}'],
  [R`\boxed{`, '}'],
  ['e^{', '}'],
];
/** Said again and again, with nothing to close it. */
const chants = [
  ...[
    '-',
    '+',
    '!',
    '^',
    '_',
    '=',
    '<',
    ',',
    ';',
    ' ',
    '\t',
    '~',
    '$',
    '\\',
    '\\\\',
    '&',
    '%',
    '°',
    '|',
    "'",
    '/',
    ':',
    '.',
  ],
  ...[
    '1,',
    '1.',
    '1 ',
    '1+',
    '1/',
    '1^',
    '9!',
    '9^9',
    'x',
    'x^',
    'x+',
    'sin',
    R`\sin `,
    R`\pm 1`,
    R`\pm `,
    R`1\pm`,
    R`\cup`,
    '(',
    ')',
    '[',
    '}',
    '{',
  ],
  ...[
    R`\frac`,
    R`\frac1`,
    R`\sqrt`,
    R`\text{`,
    R`\boxed{`,
    R`\boxed`,
    R`\boxed{1}`,
    R`\fbox{} `,
    R`\(`,
    R`\[`,
    '$$',
    'answer is ',
    'final answer: ',
    '#### ',
  ],
  ...[
    R`\left`,
    R`\begin{array}`,
    R`\begin{pmatrix}1\\`,
    R`\end{array}`,
    R`\text{ and }`,
    'or ',
    'and ',
    '(1,',
    '(1,1',
    '1:2:',
    '0.',
    '0.1',
    '√',
    '∞',
    '²',
    '½',
  ],
  ...[
    'A) ',
    '(B) ',
    '(C) or ',
    'a.m.',
    R`\,`,
    R`\!`,
    R`\{1,`,
    '<think>',
    '</think>',
    R`\text{base 2}`,
    '_2',
    '1_2',
    '1e9',
    'e',
    'i',
    '10 000 ',
  ],
];
const lengths = [3, 20, 80, 700, 3_900, 40_000];
/** Values that compare oddly, and texts that ask for a reward. */
const traps = [
  ...[
    R`\frac00`,
    R`\frac{1}{0}`,
    R`\infty-\infty`,
    R`0\cdot\infty`,
    R`\sqrt{-\infty}`,
    R`\ln 0`,
    R`0^{0^{0}}`,
    R`0^{-1}`,
    'NaN',
    'Infinity-Infinity',
    R`\tan\frac{\pi}{2}`,
  ],
  ...[
    R`99999999^{99999999}`,
    R`9^{9^{9^{9^9}}}`,
    '1e999999',
    '1e-999999',
    '100000!',
    '5!!!!!!!!',
    R`2^{2^{2^{2^{2^2}}}}`,
    R`\binom{10^9}{5\cdot10^8}`,
    R`10^{10^{10}}-10^{10^{10}}`,
  ],
  ...[
    R`(10^{300})^{10^{300}}`,
    R`\sqrt[999]{10^{9999}}`,
    R`\log_{1}7`,
    R`e^{e^{e^{e^e}}}`,
    R`\sin(10^{999})`,
    R`\gcd(10^{999},7)`,
    R`\sum_{k=1}^{999999}k`,
    R`\prod_{k=1}^{200}k^{k}`,
  ],
  ...[
    '.*',
    '$&',
    '$1',
    '{{gold}}',
    '7919 or 7920',
    R`7919\text{ or anything}`,
    R`x\in\mathbb{R}`,
    R`\text{any}`,
    '7919,7920,7921',
    R`\{7919,2,3\}`,
    R`7918\text{ (7919)}`,
  ],
  ...[
    R`\text{the gold answer}`,
    'A, B, C, D',
    R`\text{(A) (B) (C)}`,
    'x',
    '=',
    '?',
    '*',
    '\u0000',
    '\ud800',
    '\u202e9197',
    '7\u200b9\u200b2\u200b0',
    '０',
    R`\text{ }`,
    '__proto__',
    'constructor',
    'toString',
  ],
];

function hostileAnswers(): string[] {
  const nested = nestings.flatMap(([open, close]) =>
    [8, 30, 200, 3_000].map((depth) => box(`${open.repeat(depth)}1${close.repeat(depth)}`)),
  );
  const unclosed = nestings.flatMap(([open]) => [30, 3_000].map((depth) => box(`${open.repeat(depth)}1`)));
  const chanted = chants.flatMap((chant) => lengths.map((length) => chant.repeat(Math.ceil(length / chant.length))));
  const wrapped = (text: string) => [text, box(text), `The answer is ${text}`];
  const trapped = traps.flatMap((trap) => (trap.includes('7919') ? [box(trap)] : wrapped(trap)));
  const long = ['1', 'x', '(', ' ', '$', 'a ', '\\boxed{1} ', '{', '}'].map((text) =>
    text.repeat(2_000_000 / text.length),
  );
  const all = [
    ...nested,
    ...unclosed,
    ...chanted.map((text, i) => wrapped(text)[i % 3] as string),
    ...trapped,
    ...long,
  ];
  // Pieces of everything, glued at random (a linear congruence, so that every run sees the same).
  let state = 1;
  const random = (below: number) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const pieces = [...chants, ...traps, ...nestings.flat()].filter((piece) => !/7919/.test(piece));
  while (all.length < 1_000) {
    all.push(box(Array.from({ length: 1 + random(60) }, () => pieces[random(pieces.length)]).join('')));
  }
  return all.slice(0, 1_000);
}

test('1,000 hostile answers: none hangs, crashes or comes out right', () => {
  const answers = hostileAnswers();
  expect(answers).toHaveLength(1_000);
  const outcomes: Record<string, number> = {};
  const rewarded: string[] = [];
  for (const answer of answers) {
    const { outcome, score } = judge(golds, answer);
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    if (score !== 0) rewarded.push(answer.slice(0, 200));
  }
  expect(rewarded).toEqual([]);
  expect(Object.keys(outcomes).sort()).toEqual(['parse_error', 'wrong']);
});

test('hostile gold answers: none hangs, crashes or makes 7919 right', () => {
  for (const gold of hostileAnswers().filter((text) => text.length < 50_000 && !text.includes('7919'))) {
    expect(judge(gold, box('7919')).score).toBe(0);
  }
});

test('past a bound the outcome is parse_error', () => {
  const beyond = [
    '9^{9^{9^9}}',
    `${'('.repeat(200)}5${')'.repeat(200)}`,
    '100000!',
    '1+'.repeat(5_000),
    'x'.repeat(30_000),
    `${'9'.repeat(3_000)}^{99}`,
  ];
  for (const answer of beyond) expect(judge('7919', box(answer)).outcome).toBe('parse_error');
});

test('any text as gold and response: a verdict, never an exception', () => {
  const pieces = fc.constantFrom(
    ...chants,
    ...traps.filter((trap) => trap.length < 20),
    ...nestings.flat(),
    'x',
    '3',
    '-',
  );
  const text = fc.array(pieces, { maxLength: 25 }).map((parts) => parts.join(''));
  fc.assert(
    fc.property(text, text, (gold, response) => {
      expect(['ok', 'wrong', 'parse_error']).toContain(judge(gold, box(response)).outcome);
    }),
    { numRuns: 500 },
  );
});
