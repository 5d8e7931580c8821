// The verifier `math`: where the answer is (math/find.ts), how it is read (math/parse.ts) and when two answers are equal
// (math/compare.ts); docs/math-verifier.md states the rules. Every step is counted: past a bound the outcome is
// parse_error, never ok, and the same on every machine.

import { afterThinking } from './extract.js';
import { verifyAsArcher } from './math/archer.js';
import { asWords, clean } from './math/clean.js';
import { sameAnswer } from './math/compare.js';
import { type Answer, findAnswer, goldText } from './math/find.js';
import type { Node } from './math/node.js';
import { parseAnswer } from './math/parse.js';
import { withUnitOf } from './math/units.js';
import { choiceLetter, choiceOf, isWords, sameTime, sameWords } from './math/words.js';
import { BoundError, Budget } from './rational.js';
import type { RewardInput, Verdict } from './types.js';

export interface MathOptions {
  /** `archer`: the reference's own grader. Default `semantic`. */
  mode?: 'semantic' | 'archer';
  /** Counts the steps. Default 50,000 for one response, whatever it holds. */
  budget?: Budget;
}

const maxSteps = 50_000;
const maxGolds = 100;
const maxAnswer = 20_000;

/** 1 if the response's answer equals one of the accepted answers mathematically. */
export function verifyMath(input: RewardInput, options: MathOptions = {}): Verdict {
  const { mode = 'semantic', budget = new Budget(maxSteps) } = options;
  return mode === 'archer' ? verifyAsArcher(input, budget) : verifySemantically(input, budget);
}

function verifySemantically({ response, groundTruth }: RewardInput, budget: Budget): Verdict {
  const answer = findAnswer(afterThinking(response));
  if (answer === undefined) return { score: 0, outcome: 'parse_error', message: 'the response holds no answer' };
  if (answer === 'unclosed') return { score: 0, outcome: 'parse_error', message: 'the last box is not closed' };
  const golds = (Array.isArray(groundTruth) ? groundTruth : [groundTruth]).slice(0, maxGolds);
  const extracted = answer.text.slice(0, 500);
  let bound: string | undefined;
  for (const gold of golds) {
    try {
      if (matches(goldText(gold), answer, budget)) return { score: 1, outcome: 'ok', extracted };
    } catch (error) {
      if (!(error instanceof BoundError)) throw error;
      bound = error.message;
    }
  }
  if (bound !== undefined) return { score: 0, outcome: 'parse_error', extracted, message: bound };
  return { score: 0, outcome: 'wrong', extracted };
}

function matches(goldRaw: string, answer: Answer, budget: Budget): boolean {
  if (Math.max(goldRaw.length, answer.text.length) > maxAnswer) {
    throw new BoundError(`the answer has more than ${maxAnswer} characters`);
  }
  const gold = clean(goldRaw);
  const response = withUnitOf(gold, clean(answer.text));
  if (asWords(gold) === '' || asWords(response) === '') return false;
  const choice = choiceLetter(gold);
  if (choice !== undefined && (answer.option === choice || choiceOf(response) === choice)) return true;
  const time = sameTime(gold, response);
  if (time !== undefined) return time;
  if (isWords(gold)) return sameWords(gold, response);
  const goldNode = parseAnswer(gold, { budget });
  const responseNode = parseAnswer(response, { budget });
  if (sameAnswer(goldNode, responseNode, budget)) return true;
  // "1,234" is a number, but against a set or a tuple it may also be its two elements.
  if (!isCollection(goldNode) || !/\d,\d{3}/.test(response)) return false;
  return sameAnswer(goldNode, parseAnswer(response, { budget, grouping: false }), budget);
}

function isCollection(node: Node): boolean {
  return node.kind === 'set' || node.kind === 'bracket' || node.kind === 'list';
}
