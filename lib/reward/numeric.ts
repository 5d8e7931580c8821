// The verifier `numeric`: one number against one number, exactly. The last box counts, else what follows `####` or
// "Answer:", else the last number of the text after the first </think>.
//
// Understood: 1,234.5 and 1 234 (thousands in groups of three), fractions a/b and \frac{a}{b}, a b/c, 1.5e3, currency
// signs and units (dropped), percent (a percentage equals its number and its hundredth, never two percentages of
// different size). Nothing is rounded: 0.33 is not 1/3.

import { afterThinking, announcedAnswer, findBoxes } from './extract.js';
import { BoundError, add, divide, equal, multiply, parseDecimal, type Rational, rational } from './rational.js';
import type { RewardInput, Verdict } from './types.js';

interface Quantity {
  value: Rational;
  percent: boolean;
}

export function verifyNumeric({ response, groundTruth }: RewardInput): Verdict {
  try {
    return judge(response, Array.isArray(groundTruth) ? groundTruth : [groundTruth]);
  } catch (error) {
    if (error instanceof BoundError) return { score: 0, outcome: 'parse_error', message: error.message };
    throw error;
  }
}

function judge(response: string, golds: string[]): Verdict {
  const text = afterThinking(response);
  const { boxes, unclosed } = findBoxes(text);
  if (unclosed) return { score: 0, outcome: 'parse_error', message: 'the last box is not closed' };
  const box = boxes.at(-1)?.content;
  const place = box ?? announcedAnswer(text) ?? text;
  const found = numbersIn(place);
  if (box !== undefined && !isPlainNumber(box, found)) {
    return {
      score: 0,
      outcome: 'wrong',
      extracted: box.trim().slice(0, 200),
      message: 'the box holds no plain number',
    };
  }
  const answer = place === text ? found.at(-1) : found[0];
  if (answer === undefined) return { score: 0, outcome: 'parse_error', message: 'the response holds no number' };
  const accepted = golds.some((gold) => {
    const numbers = numbersIn(findBoxes(gold).boxes.at(-1)?.content ?? gold);
    return numbers.length === 1 && sameQuantity((numbers[0] as Found).quantity, answer.quantity);
  });
  return { score: accepted ? 1 : 0, outcome: accepted ? 'ok' : 'wrong', extracted: answer.text };
}

/** One number, perhaps with a name and "=" before it and a unit behind it; 5!, \sqrt{5} and 2 + 3 are not. */
function isPlainNumber(box: string, found: Found[]): boolean {
  if (found.length !== 1) return false;
  const rest = box
    .replace((found[0] as Found).text, ' ')
    .replace(/\\(?:text|textbf|mathrm|mathbf|boxed|left|right)(?![a-zA-Z])|\\[,;:! $%]/g, ' ');
  return /^(?:[a-zA-Z\s]{0,40}=)?[a-zA-Z\s{}.,$°]*$/.test(rest);
}

function sameQuantity(a: Quantity, b: Quantity): boolean {
  if (equal(a.value, b.value)) return true;
  if (a.percent === b.percent) return false;
  const [percent, plain] = a.percent ? [a, b] : [b, a];
  return equal(divide(percent.value, rational(100n)), plain.value);
}

interface Found {
  text: string;
  quantity: Quantity;
}

const literal = String.raw`(?:\d{1,3}(?:(?:,|\{,\}|\\,| )\d{3})+(?![\d])(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,4}(?!\d))?`;
const fractionForm = String.raw`\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(-?\d+)\s*\}`;
const quantityPattern = new RegExp(
  String.raw`([-−+])?\s*(?:\\?[$€£]\s*)?(?:(?:(\d+)\s*)?${fractionForm}|(?:(\d+) +(?=\d+ ?\/))?(${literal})(?: ?\/ ?(${literal}))?)\s*(\\?%|percent|\\text\{\s*percent\s*\})?`,
  'g',
);
const maxText = 20_000;

/** Every number of a text. A minus sign counts unless something stands directly before it (3-4 is 3 and 4). */
function numbersIn(text: string): Found[] {
  const tail = text.length > maxText ? text.slice(-maxText) : text;
  const found: Found[] = [];
  for (const match of tail.matchAll(quantityPattern)) {
    const [whole, sign, mixedWhole, over, under, plainWhole, number, divisor, percent] = match;
    const before = tail.slice(0, match.index).trimEnd().at(-1) ?? '';
    const negative = sign !== undefined && sign !== '+' && !/[\w)}]/.test(before);
    let value: Rational | undefined;
    if (over !== undefined) value = fractionOf(over, under as string);
    else value = divisor === undefined ? plain(number as string) : fractionOf(number as string, divisor);
    if (value === undefined) continue;
    const integer = mixedWhole ?? plainWhole;
    if (integer !== undefined) value = add(rational(BigInt(integer)), value);
    if (negative) value = multiply(value, rational(-1n));
    found.push({ text: whole.trim(), quantity: { value, percent: percent !== undefined } });
  }
  return found;
}

function fractionOf(over: string, under: string): Rational | undefined {
  const d = plain(under);
  const n = plain(over);
  return n === undefined || d === undefined || d.n === 0n ? undefined : divide(n, d);
}

const plain = (text: string) => parseDecimal(text.replace(/\{,\}|\\,|[, ]/g, ''));
