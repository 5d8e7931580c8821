// A LaTeX subset -> Node, by recursive descent. Here: what an answer is made of (lists, relations, unions, ratios);
// expression.ts reads their parts, which may hold lists again, so the two call each other.

import { BoundError } from '../rational.js';
import { readSum } from './expression.js';
import type { Joiner, Node, Relation } from './node.js';
import { ParseFailure, Reader, type ReaderOptions } from './reader.js';
import { asWords } from './clean.js';

const maxLength = 4_000;

/** Reads a cleaned answer; what is not understood becomes an opaque node. Throws BoundError past a bound. */
export function parseAnswer(text: string, options: ReaderOptions): Node {
  if (text.length > maxLength) throw new BoundError(`the answer has more than ${maxLength} characters`);
  try {
    return readAll(new Reader(text, options));
  } catch (error) {
    if (!(error instanceof ParseFailure)) throw error;
    return readNamed(text, options) ?? { kind: 'opaque', text: asOpaque(text) };
  }
}

/** Everything that is left; a final full stop belongs to the sentence. */
export function readAll(reader: Reader): Node {
  reader.take(/\s*=(?!=)|\s*\\approx(?![a-zA-Z])/y);
  const node = readList(reader);
  if (reader.next() === '.' && reader.at === reader.text.length - 1) reader.at += 1;
  if (reader.at < reader.text.length) throw new ParseFailure();
  return node;
}

/** P(A | B) = 1/3: the left side is no expression, but it is a name if it has no digits. */
function readNamed(text: string, options: ReaderOptions): Node | undefined {
  const [left, right, ...more] = text.replace(/\\lim\s*_\s*\{[^{}]*\}/, '').split('=');
  if (left === undefined || right === undefined || more.length > 0) return undefined;
  if (
    !/[a-zA-Z]/.test(left) ||
    /[\d<>,;+]|\\(?:pm|to|ne|in|le|ge|cup|text\s*\{\s*(?:or|and)\s*\})(?![a-zA-Z])/.test(left)
  ) {
    return undefined;
  }
  try {
    const value = readAll(new Reader(right, options));
    return { kind: 'relation', sides: [{ kind: 'text', text: asOpaque(left), unit: false }, value], operators: ['='] };
  } catch (error) {
    if (!(error instanceof ParseFailure)) throw error;
    return undefined;
  }
}

/** The characters that are compared where nothing is understood. */
function asOpaque(text: string): string {
  return /\\[a-zA-Z]|[\d=<>^_]/.test(text.replace(/\\(?:text|mathrm)[a-z]*/g, ''))
    ? text.replace(/\s+/g, '')
    : asWords(text);
}

/** item (, item)*, also with ";", "and", "or" between them. */
export function readList(reader: Reader): Node {
  const { items, joiner } = readItems(reader);
  return items.length === 1 ? (items[0] as Node) : { kind: 'list', items, joiner };
}

export function readItems(reader: Reader): { items: Node[]; joiner: Joiner } {
  const items = [readRelation(reader)];
  let joiner: Joiner = 'comma';
  for (;;) {
    const separator = readSeparator(reader);
    if (separator === undefined) return { items, joiner };
    if (separator !== 'comma') joiner = separator;
    items.push(readRelation(reader));
  }
}

const separators =
  /\s*(?:,|;|\\(?:text|mathrm|textbf|textrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}|\\(?:land|lor|wedge|vee)(?![a-zA-Z])|(?:and|or)(?![a-zA-Z]))/y;

const separatorsOutside = new RegExp(`${separators.source}|\\s*\\\\\\\\`, 'y');

function readSeparator(reader: Reader): Joiner | undefined {
  let joiner: Joiner | undefined;
  for (;;) {
    const separator = reader.take(reader.brackets === 0 ? separatorsOutside : separators);
    if (separator === undefined) return joiner;
    if (/or|vee/.test(separator.replace('textor', ''))) joiner = 'or';
    else if (/and|wedge/.test(separator)) joiner = 'and';
    else joiner ??= 'comma';
  }
}

const relations: Record<string, Relation> = {
  '=': '=',
  '\\approx': '~',
  '\\simeq': '~',
  '<': '<',
  '\\lt': '<',
  '>': '>',
  '\\gt': '>',
  '<=': '<=',
  '\\le': '<=',
  '\\leq': '<=',
  '\\leqslant': '<=',
  '\\leqq': '<=',
  '>=': '>=',
  '\\ge': '>=',
  '\\geq': '>=',
  '\\geqslant': '>=',
  '\\geqq': '>=',
  '!=': '!=',
  '\\ne': '!=',
  '\\neq': '!=',
};
const relationSign =
  /\s*(?:\\(?:approx|simeq|leqslant|geqslant|leqq|geqq|leq|geq|neq|le|ge|ne|lt|gt)(?![a-zA-Z])|<=|>=|!=|=|<|>)/y;

export function readRelation(reader: Reader): Node {
  reader.take(/\s*(?:[a-zA-Z]|\\[a-z]+|\(\s*[a-z](?:\s*,\s*[a-z])*\s*\))\s*\\in(?![a-zA-Z])/y);
  const sides = [readUnion(reader)];
  const operators: Relation[] = [];
  for (;;) {
    const operator = reader.take(relationSign)?.trim();
    if (operator === undefined) break;
    operators.push(relations[operator] as Relation);
    sides.push(readUnion(reader));
  }
  return operators.length === 0 ? (sides[0] as Node) : { kind: 'relation', sides, operators };
}

function readUnion(reader: Reader): Node {
  const pieces = [readDifference(reader)];
  while (reader.take(/\s*\\(?:big)?cup(?![a-zA-Z])/y)) pieces.push(readDifference(reader));
  return pieces.length === 1 ? (pieces[0] as Node) : { kind: 'union', pieces };
}

/** ℝ∖{a}, also written ℝ − {a}. */
function readDifference(reader: Reader): Node {
  const from = readRatio(reader);
  const sign = isRange(from)
    ? /\s*(?:\\(?:setminus|backslash|smallsetminus)(?![a-zA-Z])|-(?=\s*\\\{))/y
    : /\s*\\(?:setminus|backslash|smallsetminus)(?![a-zA-Z])/y;
  if (!reader.take(sign)) return from;
  return { kind: 'without', from, removed: readRatio(reader) };
}

const isRange = (node: Node) => node.kind === 'reals' || node.kind === 'bracket';

/** a : b is a quotient; a : b : c compares up to a factor. */
function readRatio(reader: Reader): Node {
  const parts = [readSum(reader)];
  while (reader.take(/\s*:(?!=)/y)) parts.push(readSum(reader));
  if (parts.length > 2) return { kind: 'ratio', parts };
  const [over, under] = parts as [Node, Node | undefined];
  return under === undefined ? over : { kind: 'quotient', over, under };
}
