// The verifier `math` with reward.math.mode: archer, the grader of the reference code: textual equality after MATH's
// normalisation, or equality after PRM800K's; else the extracted text must be a ground truth, character for character.
// Its weaknesses belong to it ({1, 2} is not {2, 1}, 35 % is not 0.35): use it to repeat its results, not to train anew.

import { afterThinking, findBoxes } from '../extract.js';
import { findAnswer } from './find.js';
import { parseAnswer } from './parse.js';
import { sameValue } from './values.js';
import { BoundError, type Budget } from '../rational.js';
import type { RewardInput, Verdict } from '../types.js';

const maxAnswer = 4_000;

/** 1 if the last box equals one of the accepted answers by the reference's rules. */
export function verifyAsArcher({ response, groundTruth }: RewardInput, budget: Budget): Verdict {
  const text = afterThinking(response);
  const answer = findBoxes(text).boxes.at(-1)?.content;
  const found = answer ?? textFound(text);
  if (found === undefined) return { score: 0, outcome: 'parse_error', message: 'the response holds no answer' };
  const extracted = found.slice(0, 500);
  if (found.length > maxAnswer) {
    return { score: 0, outcome: 'parse_error', extracted, message: `the answer has more than ${maxAnswer} characters` };
  }
  const golds = (Array.isArray(groundTruth) ? groundTruth : [groundTruth]).filter((gold) => gold.length <= maxAnswer);
  try {
    const isRight = golds
      .filter((gold) => gold.trim() !== '')
      .some((gold) => {
        const truth = findBoxes(gold).boxes.at(-1)?.content ?? gold;
        if (gold === found) return true;
        return answer !== undefined && (forMath(truth) === forMath(answer) || sameToGrader(truth, answer, budget));
      });
    return { score: isRight ? 1 : 0, outcome: isRight ? 'ok' : 'wrong', extracted };
  } catch (error) {
    if (!(error instanceof BoundError)) throw error;
    return { score: 0, outcome: 'parse_error', extracted, message: error.message };
  }
}

function textFound(text: string): string | undefined {
  const found = findAnswer(text);
  return found === 'unclosed' ? undefined : found?.text;
}

/** MATH's normal form: no sizing, degree, currency, percent or trailing unit; short fractions and roots with braces. */
function forMath(text: string): string {
  const inner = /^\\text\{(.+?)\}$/.exec(text.trim())?.[1] ?? text.trim();
  const bare = inner
    .replace(/\n|\\!|\\left|\\right|\^\{\\circ\}|\^\\circ|\\\$|\\?%/g, '')
    .replaceAll('\\\\', '\\')
    .replace(/\\[td]frac/g, '\\frac')
    .replace(/\\text\{ .*$/, '')
    .replace(/(^| |\{)\./g, '$10.');
  const [name = '', value, ...more] = bare.split('=');
  const side = value !== undefined && more.length === 0 && name.length <= 2 ? value : bare;
  const braced = side
    .replace(/\\sqrt(?!\{)(\S)/g, '\\sqrt{$1}')
    .replace(/\s/g, '')
    .replace(/\\frac(?!\{)(\S)/g, '\\frac{$1}')
    .replace(/(\\frac\{[^{}]*\})(?!\{)(\S)/g, '$1{$2}');
  if (braced === '0.5') return '\\frac{1}{2}';
  return braced.replace(/^(-?\d+)\/(-?\d+)$/, '\\frac{$1}{$2}');
}

/** PRM800K's grader: equal normal forms, or equal elements of two tuples with the same brackets. */
function sameToGrader(gold: string, answer: string, budget: Budget): boolean {
  const [g, r] = [forGrader(gold), forGrader(answer)];
  if (g === r) return g !== '';
  if (g === '' || r === '') return false;
  const [golds, answers] = [elementsOf(g), elementsOf(r)];
  const isTuple = golds.length > 1;
  if (golds.length !== answers.length || (isTuple && (g[0] !== r[0] || g.at(-1) !== r.at(-1)))) return false;
  return golds.every((element, i) => sameElement(element, answers[i] as string, budget));
}

const isFraction = (text: string) => /^-?\d+\/0*[1-9]\d*$/.test(text);
const isInteger = (text: string) => /^-?\d+$/.test(text);

/** Two fractions must be the same fraction, and an integer asks for an integer; the rest is compared symbolically. */
function sameElement(gold: string, answer: string, budget: Budget): boolean {
  if (gold === answer) return true;
  if (isFraction(gold) && isFraction(answer)) return false;
  if (isInteger(gold) !== isInteger(answer) || !mayCompute(gold) || !mayCompute(answer)) return false;
  const [g, r] = [parseAnswer(gold, { budget }), parseAnswer(answer, { budget })];
  return sameValue(g, r, budget);
}

/** The grader computes with at most two unknowns and without towers or long exponents. */
function mayCompute(text: string): boolean {
  const letters = new Set(text.replace(/sqrt|frac|pi/g, '').match(/[a-z]/g) ?? []);
  return letters.size <= 2 && !/\^[{(]|\^\d+\^|\^\d{2,}/.test(text);
}

const units =
  /(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(?:es)?s? *(?:\^\d+)?/g;

function forGrader(text: string): string {
  let plain = (/^\\text\{(.+?)\}$/.exec(text.trim())?.[1] ?? text.trim())
    .replace(/\\?[$%]/g, '')
    .replace(/ (?:or|and) /g, ' , ')
    .replaceAll('million', '*10^6')
    .replaceAll('billion', '*10^9')
    .replaceAll('trillion', '*10^12')
    .replace(units, '')
    .replace(/\^ *\\circ/g, '')
    .replace(/^\{(.*)\}$/, '$1')
    .replace(/,\\! */g, '');
  if (plain.includes('\\')) plain = withoutLatex(plain);
  plain = plain
    .replace(/- +/g, '-')
    .replace(/(\d) +(?=\d)/g, '$1+')
    .replace(/[ {}]/g, '')
    .toLowerCase();
  const number = plain.replace(/(?<=\d),(?=\d{3}(?!\d))/g, '');
  return /^-?\d+(?:\.0*)?$/.test(number) ? number.replace(/\.0*$/, '').replace(/^(-?)0+(?=\d)/, '$1') : plain;
}

/** As the reference's converter writes it: \frac{a+b}{c} loses its brackets and becomes a+b/c. */
function withoutLatex(text: string): string {
  return text
    .replace(/\\[td]frac/g, '\\frac')
    .replace(/\\frac\s*(\{[^{}]*\}|\S)\s*(\{[^{}]*\}|\S)/g, ' $1/$2')
    .replace(/\\sqrt\s*\{([^{}]*)\}/g, 'sqrt($1)')
    .replace(/\\sqrt\s*(\S)/g, 'sqrt($1)')
    .replace(/\\(?:cdot|times)(?![a-zA-Z])/g, '*')
    .replace(/\\infty(?![a-zA-Z])/g, 'inf')
    .replace(/\\cup(?![a-zA-Z])/g, 'u')
    .replace(/\\(?:left|right|text|mathrm|mathbf|textbf|displaystyle)(?![a-zA-Z])/g, '')
    .replace(/\\(pi|theta|alpha|beta)(?![a-zA-Z])/g, '$1')
    .replace(/\\[,!;: ()[\]]/g, '')
    .replace(/[{}]/g, '')
    .trim();
}

function elementsOf(text: string): string[] {
  const inner = /^[([](.*)[)\]]$/.exec(text)?.[1];
  return inner === undefined || /[()[\]]/.test(inner) || !inner.includes(',') ? [text] : inner.split(',');
}
