// Which part of a response is its answer: the last box or run of boxes, else what a sentence announces, else the last
// formula or number.

import { announcedAnswer, type Box, findBoxes } from '../extract.js';
import { namedOption } from './words.js';

export interface Answer {
  text: string;
  /** The option that the last line names ("the correct option is B"), where there is no box. */
  option?: string;
}

/** Of a response without boxes only so many last characters are read. */
const maxProse = 20_000;

/** The answer of the text behind </think>; 'unclosed' for a box that may have gone on. */
export function findAnswer(text: string): Answer | 'unclosed' | undefined {
  const { boxes, unclosed } = findBoxes(text);
  if (boxes.length > 0) return { text: joinBoxes(text, boxes) };
  return unclosed ? 'unclosed' : fromProse(text.slice(-maxProse));
}

/** A ground truth may stand in a box itself. */
export function goldText(gold: string): string {
  const { boxes } = findBoxes(gold);
  return boxes.length === 0 ? gold : joinBoxes(gold, boxes);
}

const between =
  /^(?:[\s$,;~*&]|\\[()[\],;:! ]|\\\\|\\q?quad(?![a-zA-Z])|\\(?:text|mathrm|textbf)\s*\{|[{}]|and(?![a-zA-Z])|or(?![a-zA-Z]))*$/;

/** The last box, or the last run of boxes with nothing but "and", "or" or a comma between them. */
function joinBoxes(text: string, boxes: Box[]): string {
  let first = boxes.length - 1;
  while (first > 0) {
    const gap = text.slice((boxes[first - 1] as Box).end, (boxes[first] as Box).start);
    if (gap.length > 60 || !between.test(gap)) break;
    first -= 1;
  }
  return boxes
    .slice(first)
    .map((box) => box.content)
    .join(', ');
}

function fromProse(text: string): Answer | undefined {
  const option = namedOption(text);
  const announced = announcedAnswer(text);
  const found = announced === undefined ? lastFormulaOrNumber(text) : fromSentence(announced);
  if (found !== undefined) return { text: proseCommas(found), option };
  return option === undefined ? undefined : { text: option, option };
}

const formula = /\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]/g;
const hedge =
  /\b(?:not|never|isn't|cannot|can't|neither|nor|either|between|at (?:most|least)|(?:greater|less|more|fewer|larger|smaller|bigger) than)\b/i;
const condition = /^\s*,?\s*(?:if|unless|or)\b/;
const joins = /^\s*(?:,|and|or|, ?and|, ?or|\/)\s*$/;

/** What the rest of an announcing sentence names: its formulas as long as they are joined, or its beginning. */
function fromSentence(announced: string): string {
  const plain = announced.replace(/\*\*|__/g, '').replace(/[\s.]+$/, '');
  const sentence = plain.includes('(') ? plain : plain.replace(/\)$/, '');
  const found = [...sentence.matchAll(formula)];
  const [first] = found;
  if (first === undefined) return leadingValue(sentence);
  const before = sentence.slice(0, first.index);
  if (hedge.test(before)) return sentence;
  // "The answer is 7, since $2^3 = 8$": the value stands before the first formula.
  if (/^[\s$]*[-−(]?\d/.test(before)) return leadingValue(sentence);
  const parts = [formulaText(first)];
  for (let i = 1; i < found.length; i += 1) {
    const [previous, next] = [found[i - 1] as RegExpMatchArray, found[i] as RegExpMatchArray];
    const gap = sentence.slice((previous.index ?? 0) + previous[0].length, next.index);
    if (!joins.test(gap)) break;
    parts.push(formulaText(next));
  }
  // "$27$ if x is even", "$27$ or perhaps 28": no answer that a gold could equal.
  const last = found[parts.length - 1] as RegExpMatchArray;
  if (condition.test(sentence.slice((last.index ?? 0) + last[0].length))) return sentence;
  return parts.join(', ');
}

const formulaText = (match: RegExpMatchArray) => match[1] ?? match[2] ?? match[3] ?? '';

/** "42 because …": what an announcing sentence names is its beginning. */
function leadingValue(sentence: string): string {
  const end = /[,.;]\s(?!\s*(?:and|or)\b)(?![\d(-])|\s(?:because|since|as|so|which|where|for|when|after)\s/.exec(
    sentence,
  );
  return (end === null ? sentence : sentence.slice(0, end.index)).replace(
    /^(?:the (?:number|value) |exactly |simply )/i,
    '',
  );
}

// A number with what belongs to it: 4:45 p.m., 3/8, 25π/4, 2√3, 35 %, \frac{3}{8}; or a pair or more of them: (3, −1).
// No digit follows a digit's atom and no comma stands in a tuple's number, so that there is one way to read each.
const symbols = String.raw`π|√ ?\d+|∞|\\pi(?![a-zA-Z])|\\infty|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}|\\sqrt\s*\{[^{}]*\}`;
const valueWith = (number: string) => {
  const atom = String.raw`(?:(?<!\d)${number}|${symbols})`;
  return `[-−+]?${atom}+(?: ?[/:^] ?${atom})*`;
};
const inTuple = valueWith(String.raw`\d+(?:\.\d+)?`);
const bareValue = new RegExp(
  String.raw`[([] ?${inTuple}(?:, ?${inTuple}){1,4} ?[)\]]|${valueWith(String.raw`\d+(?:[.,]\d+)*`)}(?: ?\\?%| ?[ap]\.?m\b\.?)?`,
  'gi',
);
const lastFormula =
  /\$\$([^$]+)\$\$|\$([^$]+)\$|\\\(([^\\]*(?:\\(?!\))[^\\]*)*)\\\)|\\\[([^\\]*(?:\\(?!\])[^\\]*)*)\\\]/g;

function lastFormulaOrNumber(text: string): string | undefined {
  const tail = text.slice(-4_000);
  let best: { end: number; text: string } | undefined;
  for (const pattern of [lastFormula, bareValue]) {
    for (const match of tail.matchAll(pattern)) {
      const end = match.index + match[0].length;
      const content = pattern === bareValue ? match[0] : (match[1] ?? match[2] ?? match[3] ?? match[4] ?? '');
      if (best === undefined || end > best.end) best = { end, text: content };
    }
  }
  return best?.text;
}

/** In prose 2,75 is a decimal comma unless three digits follow. */
function proseCommas(text: string): string {
  return text.replace(/^([-−]?\d+),(\d+)(?![\d,.])/, (whole, before: string, after: string) =>
    after.length === 3 && !/^[-−]?0$/.test(before) ? whole : `${before}{,}${after}`,
  );
}
