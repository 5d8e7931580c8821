// Sums, products, powers and what they are made of. Implicit multiplication, mixed numbers and dropped units are
// decided here.

import { readCommand, readCall } from './commands.js';
import { functionNames, numberWords, startsFactor } from './names.js';
import type { Node } from './node.js';
import { numberNode, readNumber } from './numbers.js';
import { readItems, readList } from './parse.js';
import { ParseFailure, type Reader } from './reader.js';
import { isCurrency, unitWords } from './units.js';

export function readSum(reader: Reader): Node {
  return reader.nested(() => {
    const terms: Node[] = [];
    for (let first = true; ; first = false) {
      // The minus of ℝ − {4} takes away from a set.
      if (!first && reader.peek(/\s*-\s*\\\{/y)) break;
      const sign = reader.take(/\s*(?:[+-]|\\(?:pm|mp)(?![a-zA-Z]))/y)?.trim();
      if (sign === undefined && !first) break;
      const term = readProduct(reader);
      if (sign === '-') terms.push(negative(term));
      else if (sign === '\\pm' || sign === '\\mp')
        terms.push({ kind: 'plusMinus', of: term, sign: sign === '\\pm' ? 1 : -1 });
      else terms.push(term);
    }
    return terms.length === 1 ? (terms[0] as Node) : { kind: 'sum', terms };
  });
}

function negative(of: Node): Node {
  return of.kind === 'percent' ? { kind: 'percent', of: negative(of.of) } : { kind: 'negative', of };
}

export function readProduct(reader: Reader): Node {
  let left = readSigned(reader);
  for (;;) {
    reader.budget.spend();
    if (reader.take(/\s*(?:\\(?:cdot|times|ast)(?![a-zA-Z])|\*(?!\*))/y)) {
      left = times(left, readSigned(reader));
    } else if (reader.take(/\s*(?:\/|\\div(?![a-zA-Z])|\\slash(?![a-zA-Z]))/y)) {
      reader.deepen();
      const under = readSigned(reader);
      // 60 km/h: behind a unit everything is unit.
      if (left.kind !== 'text' && !isUnit(under)) left = { kind: 'quotient', over: left, under };
    } else if (
      reader.take(/\s*\\?%|\s*\\?percent(?:age)?(?![a-zA-Z])|\s*\\(?:text|mathrm)\s*\{\s*(?:percent|\\?%)\s*\}/y)
    ) {
      reader.deepen();
      left = { kind: 'percent', of: left };
    } else if (startsHere(reader)) {
      // Two numbers side by side ("12 13") are not a product.
      if (left.kind === 'number' && reader.peek(/ *\.?\d/y)) throw new ParseFailure();
      const from = reader.at;
      const factor = readPower(reader);
      left = isMixedPart(reader, left, factor, from) ? { kind: 'sum', terms: [left, factor] } : times(left, factor);
    } else {
      return left;
    }
  }
}

/** `4\frac{3}{4}`: a whole number and a fraction of plain numbers. */
function isMixedPart(reader: Reader, left: Node, factor: Node, from: number): boolean {
  return (
    left.kind === 'number' &&
    /^\d+$/.test(left.digits) &&
    factor.kind === 'quotient' &&
    factor.over.kind === 'number' &&
    factor.under.kind === 'number' &&
    /^\s*\{?\s*\\[dtc]?frac/.test(reader.text.slice(from, from + 20))
  );
}

/** A unit behind a value is dropped, whatever it is multiplied with, and so is a currency before one. */
export function times(left: Node, right: Node): Node {
  if (isUnit(right)) return left;
  if (left.kind === 'text' && isCurrency(left.text) && right.kind !== 'text') return right;
  if (left.kind === 'product') return { kind: 'product', factors: [...left.factors, right] };
  return { kind: 'product', factors: [left, right] };
}

const isUnit = (node: Node) => node.kind === 'text' && node.unit;

function readSigned(reader: Reader): Node {
  const sign = reader.take(/\s*[+-]/y)?.trim();
  if (sign === undefined) return readPower(reader);
  const of = reader.nested(() => readSigned(reader));
  return sign === '-' ? { kind: 'negative', of } : of;
}

/** Whether a factor begins here, without a sign for the multiplication. */
export function startsHere(reader: Reader): boolean {
  const next = reader.next();
  if (next === undefined) return false;
  const rest = reader.text.slice(reader.at, reader.at + 40);
  if (/^(?:and|or)(?![a-zA-Z])|^\\(?:text|mathrm|textbf|textrm|mbox)\s*\{\s*,?\s*(?:and|or)\s*,?\s*\}/.test(rest))
    return false;
  if (next === '|') return reader.bars === 0;
  if (/^[a-zA-Z0-9({[]|^\.\d/.test(rest)) return true;
  const command = /^\\([a-zA-Z]+)/.exec(rest)?.[1];
  return command !== undefined && startsFactor(command);
}

const degreeMark = /\s*\^\s*(?:\\circ(?![a-zA-Z])|\{\s*\\circ\s*\})(?:\s*[CF](?![a-zA-Z]))?|\s*\\degrees?(?![a-zA-Z])/y;

/** An atom with its powers, degree marks, factorials and subscripts. */
export function readPower(reader: Reader): Node {
  return reader.nested(() => {
    let base = readAtom(reader);
    for (; ; reader.deepen()) {
      if (reader.take(degreeMark)) {
        if (base.kind !== 'text') base = { kind: 'degrees', of: base };
      } else if (reader.take(/\s*\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![a-zA-Z]))/y)) {
        base = primed(base, "'");
      } else if (reader.take(/\s*(?:\^|\*\*)/y)) {
        const exponent = readArgument(reader, true);
        if (base.kind !== 'text') base = powerOf(reader, base, exponent);
      } else if (reader.take(/\s*!!(?!=)/y)) {
        base = { kind: 'call', name: 'doubleFactorial', of: base };
      } else if (reader.take(/\s*!(?!=)/y)) {
        base = { kind: 'call', name: 'factorial', of: base };
      } else if (reader.take(/\s*_/y)) {
        base = subscripted(base, reader.rawArgument());
      } else {
        return base;
      }
    }
  });
}

/** f^{-1}(x) is a name, and M^T the transpose of a matrix. */
function powerOf(reader: Reader, base: Node, exponent: Node): Node {
  if (base.kind === 'variable' && /^[fgh]$/i.test(base.name) && isMinusOne(exponent) && reader.peek(/\s*\(/y)) {
    return { kind: 'variable', name: `${base.name}^-1` };
  }
  if (base.kind === 'matrix' && exponent.kind === 'variable' && /^T$|^top$/.test(exponent.name)) {
    const [first = []] = base.rows;
    return { kind: 'matrix', rows: first.map((_, column) => base.rows.map((row) => row[column] as Node)) };
  }
  return { kind: 'power', base, exponent };
}

export function isMinusOne(node: Node): boolean {
  return node.kind === 'negative' && node.of.kind === 'number' && node.of.digits === '1';
}

function primed(base: Node, primes: string): Node {
  if (base.kind !== 'variable') throw new ParseFailure();
  return { kind: 'variable', name: base.name + primes };
}

function subscripted(base: Node, raw: string): Node {
  const name = raw.replace(/\\(?:text|mathrm|textrm)(?![a-zA-Z])|[{}\s]/g, '').toLowerCase();
  if (name === '') throw new ParseFailure();
  const radix = name.replace(/^\(?(?:base)?|\)$/g, '');
  if (base.kind === 'number') return { kind: 'inBase', digits: base.digits, base: numberWords[radix] ?? radix };
  if (base.kind === 'text')
    return { kind: 'inBase', digits: base.text.toUpperCase(), base: numberWords[radix] ?? radix };
  if (base.kind === 'variable') return { kind: 'variable', name: `${base.name}_${name}` };
  throw new ParseFailure();
}

export function readAtom(reader: Reader): Node {
  const character = reader.next();
  reader.budget.spend();
  if (character === undefined) throw new ParseFailure();
  const digits = readHexadecimal(reader);
  if (digits !== undefined) return { kind: 'text', text: digits, unit: false };
  if (/[\d.]/.test(character)) return readNumber(reader);
  if (character === '(' || character === '[') return readBracket(reader, character);
  if (character === '{') return readGroup(reader);
  if (character === '|') return readAbsolute(reader);
  if (/[a-zA-Z]/.test(character)) return readLetters(reader);
  if (character === '\\') return readCommand(reader);
  throw new ParseFailure();
}

/** 1A or BAD before the subscript of a base. */
function readHexadecimal(reader: Reader): string | undefined {
  const run = /[\dA-Fa-f]{2,64}(?= ?_)/y;
  run.lastIndex = reader.at;
  const digits = run.exec(reader.text)?.[0];
  if (digits === undefined || /^\d+$/.test(digits) || !/\d|^[A-F]+$/.test(digits)) return undefined;
  reader.at += digits.length;
  return digits;
}

function readBracket(reader: Reader, open: '(' | '['): Node {
  reader.at += 1;
  const { items } = reader.bracketed(() => readItems(reader));
  const close = reader.expect(/\s*[)\]]/y).trim() as ')' | ']';
  if (items.length > 1) return { kind: 'bracket', open, close, items };
  if (close !== (open === '(' ? ')' : ']')) throw new ParseFailure();
  return items[0] as Node;
}

/** `{…}`, also `{a \over b}` and `{n \choose k}`. */
function readGroup(reader: Reader): Node {
  reader.at += 1;
  const node = reader.nested(() => {
    const left = readList(reader);
    const infix = reader.take(/\s*\\(?:over|choose)(?![a-zA-Z])/y)?.trim();
    if (infix === undefined) return left;
    const right = readList(reader);
    return infix === '\\over' ? quotient(left, right) : binomial(left, right);
  });
  reader.expect(/\s*\}/y);
  return node;
}

export const quotient = (over: Node, under: Node): Node => ({ kind: 'quotient', over, under });
export const binomial = (n: Node, k: Node): Node => ({ kind: 'call', name: 'binomial', of: n, base: k });

function readAbsolute(reader: Reader): Node {
  reader.at += 1;
  reader.bars += 1;
  const of = readSum(reader);
  reader.bars -= 1;
  reader.expect(/\s*\|/y);
  return { kind: 'call', name: 'abs', of };
}

const constants: Record<string, 'pi' | 'infinity'> = { pi: 'pi', infinity: 'infinity', inf: 'infinity' };

/** A function, a constant, a word, or else one letter of a product. */
function readLetters(reader: Reader): Node {
  const word = /[a-zA-Z]+/y.exec(reader.text.slice(reader.at))?.[0] ?? '';
  const lower = word.toLowerCase();
  const attached = /[\d)}\]]/.test(reader.text[reader.at - 1] ?? ' ');
  const advance = (count: number) => {
    reader.at += count;
  };
  if (lower === 'and' || lower === 'or') throw new ParseFailure();
  const name = functionNames.has(word) ? word : functionBefore(word);
  if (name !== undefined) {
    advance(name.length);
    return readCall(reader, name);
  }
  if (word === 'sqrt') {
    advance(word.length);
    return { kind: 'root', degree: 2, of: readArgument(reader) };
  }
  const constant = constants[lower];
  if (constant !== undefined) {
    advance(word.length);
    return { kind: 'constant', name: constant };
  }
  // Behind a digit 2abcd is a product; units may stand there.
  if (unitWords.has(lower) || (word.length >= 4 && !attached)) {
    advance(word.length);
    return { kind: 'text', text: lower, unit: true };
  }
  // f(3) = 12 names a value, unlike 3f = 12.
  const value = reader.take(/[fghpFGHP]\(-?\d+\)(?=\s*=)/y);
  if (value !== undefined) return { kind: 'variable', name: value };
  advance(1);
  const primes = reader.take(/'{1,3}/y);
  const own = letter(word[0] as string);
  return primes === undefined ? own : primed(own, primes);
}

/** sinx, cosx, lnx. */
function functionBefore(word: string): string | undefined {
  const name = word.slice(0, -1);
  return name.length >= 2 && functionNames.has(name) && name !== 'lg' ? name : undefined;
}

export function letter(name: string): Node {
  return name === 'i' || name === 'e' ? { kind: 'constant', name } : { kind: 'variable', name };
}

/** What a command or ^ takes: a group, one digit, one letter, one command. */
export function readArgument(reader: Reader, signed = false): Node {
  const character = reader.next();
  if (character === undefined) throw new ParseFailure();
  if (signed && character === '-') {
    reader.at += 1;
    return { kind: 'negative', of: reader.nested(() => readArgument(reader, true)) };
  }
  if (/\d/.test(character)) {
    // \frac38 takes a digit, but 2^10 is written without braces often enough in plain text to mean ten.
    return numberNode(reader.expect(signed ? /\d+/y : /\d/y));
  }
  if (/[a-zA-Z]/.test(character) && !reader.peek(/sqrt|pi(?![a-zA-Z])/y)) {
    reader.at += 1;
    return letter(character);
  }
  return reader.nested(() => readAtom(reader));
}
