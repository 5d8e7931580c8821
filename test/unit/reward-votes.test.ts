// Votes for maj@n: answers that the verifier holds for equal are one vote.
import { describe, expect, test } from '@jest/globals';
import type { Outcome } from '../../lib/reward/types.js';
import { votesOf } from '../../lib/reward/votes.js';

const votes = (answers: (string | undefined)[], judge: string, outcome: Outcome = 'wrong') =>
  votesOf(
    answers.map((extracted) => ({ score: 0, outcome, ...(extracted === undefined ? {} : { extracted }) })),
    { prompt: '', response: '', groundTruth: '', extraInfo: {}, dataSource: 'math500' },
    judge,
  );

describe('votes', () => {
  test('math: equal values are one vote, ties go to the first', () => {
    const answers = ['\\frac{1}{2}', '2', '0.5', '\\frac{2}{4}', '2', undefined];
    expect(votes(answers, 'math')).toEqual([0, 1, 0, 0, 1, null]);
    expect(votes(answers, 'by data_source')).toEqual([0, 1, 0, 0, 1, null]);
  });

  test('exact, and functions of the user’s: equal text is one vote', () => {
    for (const judge of ['exact', 'my-reward.mjs', 'a function']) {
      expect(votes(['1/2', '0.5', '1/2'], judge)).toEqual([0, 1, 0]);
    }
  });

  test('what could not be parsed does not vote, and no program does', () => {
    expect(votes(['x', 'x'], 'code')).toEqual([null, null]);
    expect(votes(['x', 'x'], 'math', 'parse_error')).toEqual([null, null]);
  });
});
