// Literals: 1,048,576 · 2{,}75 · 4 3/4 · 1.5e3 · 0.\overline{45} · 0.454545\ldots, all of them exact rationals.

import { add, divide, parseDecimal, power, type Rational, rational } from '../rational.js';
import type { Node } from './node.js';
import { ParseFailure, type Reader } from './reader.js';

// A group of other than three digits makes the whole a list, and no grouped number begins with 0.
const fractionPart = String.raw`(?:\.\d+|\{,\}(?!\d{3}(?!\d))\d+)?`;
const grouped = (separator: string) =>
  String.raw`[1-9]\d{0,2}(?:${separator}\d{3})+(?!\d|${separator}\d)${fractionPart}`;
const bySpaces = String.raw`[1-9]\d{0,2}(?: \d{3})+(?! ?\d| ?\/)${fractionPart}`;
const groupedOutside = new RegExp(`${grouped(String.raw`(?:,|\{,\})`)}|${bySpaces}`, 'y');
const groupedInBrackets = new RegExp(`${grouped(String.raw`\{,\}`)}|${bySpaces}`, 'y');

/** The number that begins here. */
export function readNumber(reader: Reader): Node {
  const group = reader.take(reader.grouping && reader.brackets === 0 ? groupedOutside : groupedInBrackets);
  if (group !== undefined) return numberNode(ungrouped(group));
  const mixed = reader.take(/\d+ +\d+ ?\/ ?\d+(?![\d.])/y);
  if (mixed !== undefined) {
    const [whole, over, under] = mixed.split(/[ /]+/) as [string, string, string];
    return {
      kind: 'number',
      value: add(readDecimal(whole), fraction(over, under)),
      decimal: false,
      digits: '',
    };
  }
  const comma = reader.take(/\d+\{,\}\d+/y);
  if (comma !== undefined) return numberNode(comma.replace('{,}', '.'));
  const literal = reader.expect(/(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,6}(?![\d.]))?|\.(?= ?\\overline)/y);
  if (/\./.test(literal)) {
    const period = reader.take(/ ?\\(?:overline|bar)\s*(?:\{\s*\d+\s*\}|\d)| ?\\dot\s*(?:\{\s*\d\s*\}|\d)/y);
    if (period !== undefined) return repeatingDecimal(literal, withDots(reader, period));
    if (reader.take(/ ?(?:\\(?:ldots|dots|cdots)(?![a-zA-Z])|\.\.\.)/y)) return endlessDecimal(literal);
  }
  // A final full stop belongs to the sentence: "48." is 48.
  return numberNode(literal.replace(/\.$/, ''));
}

export function numberNode(text: string): Node & { kind: 'number' } {
  return { kind: 'number', value: readDecimal(text), decimal: /[.eE]/.test(text), digits: text };
}

/** `,` `{,}` and spaces between groups go; a `{,}` before other than three digits at the end is the decimal comma. */
function ungrouped(group: string): string {
  const comma = /\{,\}(\d+)$/.exec(group);
  const isDecimal = comma !== null && comma[1]?.length !== 3;
  const whole = isDecimal ? group.slice(0, comma.index) : group;
  return whole.replace(/\{,\}|[, ]/g, '') + (isDecimal ? `.${comma[1]}` : '');
}

/** \dot{4}\dot{5} marks the first and the last digit of the period, \dot{3} its only one. */
function withDots(reader: Reader, period: string): string {
  const first = period.replace(/\D/g, '');
  if (!period.includes('dot')) return first;
  const rest = reader.take(/ ?\d* ?\\dot\s*(?:\{\s*\d\s*\}|\d)/y);
  return first + (rest?.replace(/\D/g, '') ?? '');
}

function readDecimal(text: string): Rational {
  const value = parseDecimal(text);
  if (value === undefined) throw new ParseFailure();
  return value;
}

function fraction(over: string, under: string): Rational {
  const d = readDecimal(under);
  if (d.n === 0n) throw new ParseFailure();
  return divide(readDecimal(over), d);
}

/** 0.4\overline{5}: the digits before the period, and the period over as many nines. */
function repeatingDecimal(start: string, period: string): Node {
  const places = BigInt(start.split('.')[1]?.length ?? 0);
  const nines = rational(10n ** BigInt(period.length) - 1n);
  const tail = divide(divide(rational(BigInt(period)), nines), power({ n: 10n, d: 1n }, places));
  const head = start === '.' ? rational(0n) : readDecimal(start.replace(/\.$/, ''));
  return { kind: 'number', value: add(head, tail), decimal: false, digits: '' };
}

/** 0.454545\ldots after six places or more: the shortest period that the digits show at least twice. */
function endlessDecimal(literal: string): Node {
  const places = literal.split('.')[1] ?? '';
  if (places.length >= 6 && places.length <= 200) {
    for (let period = 1; period * 2 <= places.length; period += 1) {
      const unit = places.slice(-period);
      let start = places.length - period;
      while (start >= period && places.slice(start - period, start) === unit) start -= period;
      if (places.length - start >= Math.max(2 * period, 4)) {
        return repeatingDecimal(`${literal.split('.')[0]}.${places.slice(0, start)}`, unit);
      }
    }
  }
  return { ...numberNode(literal.replace(/\.$/, '')), decimal: true };
}
