// The verifier `math`: where the answer is (extract.ts), how it is read (math/parse.ts) and when two answers are equal
// (math/compare.ts). Exact where the values are rational; else by evaluation at fixed points with an error bound.
// Every step is counted: past a bound the outcome is parse_error, never ok, and the same on every machine.

import { afterThinking, announcedAnswer, type Box, findBoxes } from './extract.js';
import { asWords, clean, fontless } from './math/clean.js';
import { sameAnswer } from './math/compare.js';
import type { Node } from './math/node.js';
import { parseAnswer } from './math/parse.js';
import { BoundError, Budget } from './rational.js';
import type { RewardInput, Verdict } from './types.js';

const stepsPerGold = 20_000;
const maxGolds = 100;

/** 1 if the response's answer equals one of the accepted answers mathematically. */
export function verifyMath({ response, groundTruth }: RewardInput): Verdict {
  const answer = findAnswer(afterThinking(response));
  if (answer === undefined) return { score: 0, outcome: 'parse_error', message: 'the response holds no answer' };
  if (answer === 'unclosed') return { score: 0, outcome: 'parse_error', message: 'the last box is not closed' };
  const golds = (Array.isArray(groundTruth) ? groundTruth : [groundTruth]).slice(0, maxGolds);
  const extracted = answer.text.slice(0, 500);
  let bound: string | undefined;
  for (const gold of golds) {
    try {
      if (matches(goldText(gold), answer)) return { score: 1, outcome: 'ok', extracted };
    } catch (error) {
      if (!(error instanceof BoundError) && !isStackOverflow(error)) throw error;
      bound = error instanceof BoundError ? error.message : 'the answer is nested too deep';
    }
  }
  if (bound !== undefined) return { score: 0, outcome: 'parse_error', extracted, message: bound };
  return { score: 0, outcome: 'wrong', extracted };
}

interface Answer {
  text: string;
  /** Not in a box: sentence punctuation and decimal commas are to be expected. */
  prose: boolean;
  /** The option that the last sentence names ("the correct option is B"), where there is no box. */
  option?: string;
}

function findAnswer(text: string): Answer | 'unclosed' | undefined {
  const { boxes, unclosed } = findBoxes(text);
  if (unclosed) return 'unclosed';
  if (boxes.length > 0) return { text: joinBoxes(text, boxes), prose: false };
  const option = namedOption(text);
  const announced = announcedAnswer(text);
  if (announced !== undefined) {
    const sentence = withoutMarkup(announced);
    const formula = firstFormula(sentence);
    if (formula !== undefined) return { text: formula, prose: true, option };
    return { text: proseCommas(leadingValue(sentence)), prose: true, option };
  }
  const last = lastFormulaOrNumber(text);
  if (last === undefined) return option === undefined ? undefined : { text: option, prose: true, option };
  return { text: proseCommas(last), prose: true, option };
}

/** The one letter that the last line calls the answer; two different ones are none. */
function namedOption(text: string): string | undefined {
  const lastLine = text.trimEnd().split('\n').at(-1) ?? '';
  const named = /\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)(?: is)?:? (?:\*\*)?\(?([A-J])\)?(?![a-zA-Z'])/g;
  const letters = new Set([...lastLine.slice(-1_000).matchAll(named)].map((match) => match[1] as string));
  return letters.size === 1 ? [...letters][0] : undefined;
}

const between = /^(?:[\s$,;.]|\\[()[\],; ]|\\text\s*\{|\}|and|or)*$/;

/** The last box, or the last run of boxes with nothing but "and", "or" or a comma between them. */
function joinBoxes(text: string, boxes: Box[]): string {
  let first = boxes.length - 1;
  while (first > 0) {
    const gap = text.slice((boxes[first - 1] as Box).end, (boxes[first] as Box).start);
    if (gap.length > 40 || gap.includes('.') || !between.test(gap)) break;
    first -= 1;
  }
  return boxes
    .slice(first)
    .map((box) => box.content)
    .join(', ');
}

function withoutMarkup(text: string): string {
  return text.replace(/\*\*|__/g, '').replace(/[\s.]+$/, '');
}

function firstFormula(text: string): string | undefined {
  const match = /\$\$?([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]/.exec(text);
  return match?.[1] ?? match?.[2] ?? match?.[3];
}

const numberPattern = /[-−]?(?:\d+(?:[.,]\d+)*)(?: ?\/ ?\d+)?(?: ?\\?%)?/g;

/** "42 because …": what an announcing sentence names is its beginning. */
function leadingValue(sentence: string): string {
  const end = /[,.;]\s|\s(?:because|since|as|so|which|where|for)\s/.exec(sentence);
  return end === null ? sentence : sentence.slice(0, end.index);
}

function lastFormulaOrNumber(text: string): string | undefined {
  let best: { end: number; text: string } | undefined;
  const consider = (match: RegExpMatchArray, content: string) => {
    const end = (match.index ?? 0) + match[0].length;
    if (best === undefined || end > best.end) best = { end, text: content };
  };
  const tail = text.slice(-4_000);
  for (const match of tail.matchAll(/\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(([^\\]*(?:\\(?!\))[^\\]*)*)\\\)/g)) {
    consider(match, match[1] ?? match[2] ?? match[3] ?? '');
  }
  for (const match of tail.matchAll(numberPattern)) consider(match, match[0]);
  return best?.text;
}

/** In prose 2,75 is a decimal comma unless three digits follow. */
function proseCommas(text: string): string {
  return text.replace(/^([-−]?\d+),(\d+)(?![\d,.])/, (whole, before: string, after: string) =>
    after.length === 3 ? whole : `${before}{,}${after}`,
  );
}

/** A ground truth may stand in a box itself. */
function goldText(gold: string): string {
  const { boxes } = findBoxes(gold);
  return boxes.length === 0 ? gold : joinBoxes(gold, boxes);
}

function matches(goldRaw: string, answer: Answer): boolean {
  const gold = clean(goldRaw);
  const response = clean(answer.text);
  if (asWords(gold) === '' || asWords(response) === '') return false;
  const choice = choiceLetter(gold);
  if (choice !== undefined && (choiceOf(response) === choice || answer.option === choice)) return true;
  const time = timeOf(gold);
  if (time?.half !== undefined) {
    const other = timeOf(response);
    return other !== undefined && other.clock === time.clock && (other.half === undefined || other.half === time.half);
  }
  if (isWords(gold)) return asWords(gold) === asWords(response) || (isInfinity(gold) && isInfinity(response));
  const budget = new Budget(stepsPerGold);
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

const choicePattern = /^\(?([A-J])\)?\.?$/;

function choiceLetter(gold: string): string | undefined {
  return choicePattern.exec(fontless(gold).replace(/[{}\s]/g, ''))?.[1];
}

/** C, (C), \textbf{(C)} 48, C) 48, C. 48 */
function choiceOf(response: string): string | undefined {
  const text = fontless(response).replace(/[{}]/g, '').trim();
  const bare = choicePattern.exec(text.replace(/\s/g, ''))?.[1];
  if (bare !== undefined) return bare;
  const followed = /^(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*\S/.exec(text);
  return followed?.[1] ?? followed?.[2];
}

function timeOf(text: string): { clock: string; half?: 'a' | 'p' } | undefined {
  const match = /^(\d{1,2}) ?: ?(\d{2}) ?(?:([ap])\.? ?m\.?)?$/i.exec(
    fontless(text).replace(/[{}]/g, '').replace(/\s+/g, ' ').trim(),
  );
  if (match === null) return undefined;
  return { clock: `${Number(match[1])}:${match[2]}`, half: match[3]?.toLowerCase() as 'a' | 'p' | undefined };
}

/** A gold of words alone: a font command around letters, or a plain word of four letters and more. */
function isWords(gold: string): boolean {
  const plain = fontless(gold);
  if (/[\\^_=<>\d+*/]/.test(plain)) return false;
  const inFont = plain !== gold && /[a-zA-Z]{2}/.test(plain) && /^\s*[{ ]*[a-zA-Z]/.test(plain);
  return inFont || /(?:^|[^a-zA-Z])[a-zA-Z]{4,}/.test(plain);
}

function isInfinity(text: string): boolean {
  return /^\+?(?:infinity|\\infty)$/.test(asWords(text));
}

function isStackOverflow(error: unknown): boolean {
  return (error as { name?: unknown })?.name === 'RangeError';
}
