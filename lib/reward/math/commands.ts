// What begins with a backslash: fractions, roots, functions, fonts, delimiters, environments.

import { readAll, readItems, readRelation } from './parse.js';
import {
  binomial,
  isMinusOne,
  letter,
  quotient,
  readArgument,
  readAtom,
  readPower,
  readSum,
  startsHere,
  times,
} from './expression.js';
import { decorations, functionNames, greekLetters, silentCommands, symbolFonts, uprightFonts } from './names.js';
import { mapNode, type Node } from './node.js';
import { numberNode } from './numbers.js';
import { ParseFailure, type Reader } from './reader.js';
import { readSeries } from './series.js';
import { isUnitPhrase } from './units.js';
import { asWords } from './clean.js';

export function readCommand(reader: Reader): Node {
  if (reader.take(/\\\{/y)) return readSet(reader, /\s*\\\}/y);
  const command = reader.expect(/\\[a-zA-Z]+/y).slice(1);
  const plain = symbols[command];
  if (plain !== undefined) return plain;
  if (greekLetters.has(command)) return { kind: 'variable', name: command };
  if (functionNames.has(command)) return readCall(reader, command);
  if (/^[dtc]?frac$/.test(command)) return readFraction(reader);
  if (/^[dt]?binom$/.test(command)) return binomial(readArgument(reader), readArgument(reader));
  if (command === 'sqrt') return readRoot(reader);
  if (uprightFonts.has(command)) return readUpright(reader, reader.rawArgument());
  if (symbolFonts.has(command)) return readFont(reader, command);
  if (decorations.has(command)) return readDecorated(reader);
  if (silentCommands.has(command)) return readPower(reader);
  if (command === 'begin') return readEnvironment(reader);
  if (command === 'lbrace') return readSet(reader, /\s*\\rbrace(?![a-zA-Z])/y);
  if (command === 'langle') {
    const { items } = reader.bracketed(() => readItems(reader));
    reader.expect(/\s*\\rangle(?![a-zA-Z])/y);
    return { kind: 'bracket', open: '(', close: ')', items };
  }
  const delimiter = delimiters[command];
  if (delimiter !== undefined) {
    const of = reader.bracketed(() => readSum(reader));
    reader.expect(delimiter.close);
    return { kind: 'call', name: delimiter.name, of };
  }
  if (/^(?:gcd|lcm|max|min)$/.test(command)) return readManyCall(reader, command);
  if (command === 'sum' || command === 'prod') return readSeries(reader, command);
  throw new ParseFailure();
}

const symbols: Record<string, Node> = {
  pi: { kind: 'constant', name: 'pi' },
  infty: { kind: 'constant', name: 'infinity' },
  imath: { kind: 'constant', name: 'i' },
  emptyset: { kind: 'set', items: [] },
  varnothing: { kind: 'set', items: [] },
  top: { kind: 'variable', name: 'top' },
};

const delimiters: Record<string, { name: string; close: RegExp }> = {
  lfloor: { name: 'floor', close: /\s*\\rfloor(?![a-zA-Z])/y },
  lceil: { name: 'ceil', close: /\s*\\rceil(?![a-zA-Z])/y },
  lvert: { name: 'abs', close: /\s*\\rvert(?![a-zA-Z])/y },
};

function readFraction(reader: Reader): Node {
  const over = readArgument(reader);
  const under = readArgument(reader);
  // \frac{\text{m}}{\text{s}} is a unit, and so is the lower half of \frac{5\text{ m}}{\text{s}}.
  if (under.kind === 'text' || (over.kind === 'text' && under.kind === 'variable')) return over;
  return quotient(over, under);
}

function readRoot(reader: Reader): Node {
  const degree = reader.take(/\s*\[\s*\d{1,3}\s*\]/y);
  return {
    kind: 'root',
    degree: degree === undefined ? 2 : Number(degree.replace(/\D/g, '')),
    of: readArgument(reader),
  };
}

function readSet(reader: Reader, close: RegExp): Node {
  if (reader.take(close)) return { kind: 'set', items: [] };
  const { items } = reader.bracketed(() => readItems(reader));
  reader.expect(close);
  return { kind: 'set', items };
}

/** gcd(12, 18) */
function readManyCall(reader: Reader, name: string): Node {
  const argument = readArgument(reader);
  if (argument.kind !== 'bracket') throw new ParseFailure();
  return argument.items.slice(1).reduce((of, base) => ({ kind: 'call', name, of, base }), argument.items[0] as Node);
}

const nextFunction = /\s*\\?(?:arc)?(?:sin|cos|tan|cot|sec|csc|ln|log|lg|exp)(?![a-zA-Z]{2})|\s*[([]/y;

/** \sin x, \sin^2 x, \log_3 81, \cos 2\theta: without brackets the argument is the implicit product that follows. */
export function readCall(reader: Reader, name: string): Node {
  return reader.nested(() => {
    let base: Node | undefined;
    let exponent: Node | undefined;
    for (;;) {
      if (exponent === undefined && reader.take(/\s*\^/y)) exponent = readArgument(reader, true);
      else if (base === undefined && reader.take(/\s*_/y)) base = readArgument(reader);
      else break;
    }
    const of = readCallArgument(reader);
    const inverse = exponent !== undefined && isMinusOne(exponent) && /^(?:sin|cos|tan|cot|sec|csc)h?$/.test(name);
    if (name === 'cis') return cis(inRadians('sin', of));
    const own = inverse ? `arc${name}` : name;
    const call: Node = { kind: 'call', name: own, of: inverse ? of : inRadians(own, of), base };
    return exponent === undefined || inverse ? call : { kind: 'power', base: call, exponent };
  });
}

/** cis θ = cos θ + i sin θ */
function cis(of: Node): Node {
  const imaginary: Node = { kind: 'product', factors: [letter('i'), { kind: 'call', name: 'sin', of }] };
  return { kind: 'sum', terms: [{ kind: 'call', name: 'cos', of }, imaginary] };
}

function readCallArgument(reader: Reader): Node {
  const next = reader.next();
  if (next === '(' || next === '{') {
    const atom = readAtom(reader);
    return reader.take(/\s*\^\s*\{?\s*\\circ\s*\}?/y) ? { kind: 'degrees', of: atom } : atom;
  }
  const sign = reader.take(/-/y);
  let of = readPower(reader);
  while (startsHere(reader) && !reader.peek(nextFunction)) of = times(of, readPower(reader));
  return sign === undefined ? of : { kind: 'negative', of };
}

/** The degree mark means degrees inside sin, cos and tan, and nothing elsewhere. */
function inRadians(name: string, of: Node): Node {
  if (!/^(?:sin|cos|tan|cot|sec|csc)$/.test(name)) return of;
  return mapNode(of, (node) =>
    node.kind === 'degrees' ? quotient(times(node.of, symbols.pi as Node), straightAngle) : node,
  );
}

const straightAngle = numberNode('180');

/** \text{…}: words and units, but also \text{24} and \mathrm{i}. */
function readUpright(reader: Reader, raw: string): Node {
  const words = raw.replace(/\\[a-zA-Z]+|[{}]/g, ' ').trim();
  if (functionNames.has(words)) return readCall(reader, words);
  if (/^(?:gcd|lcm|max|min)$/.test(words)) return readManyCall(reader, words);
  if (/^infinity$/i.test(words)) return symbols.infty as Node;
  if (/^[ieT]$/.test(words) || !/[a-zA-Z]/.test(words.replace(/\b(?:and|or)\b/g, '')))
    return reader.inner(raw, readAll);
  const value = /^\s*([-+]?\d[\d,.]*)\s*([a-zA-Z].*)?$/.exec(words);
  if (value !== null && isUnitPhrase(value[2] ?? '')) return reader.inner(value[1] as string, readAll);
  return { kind: 'text', text: asWords(raw), unit: isUnitPhrase(words) };
}

function readFont(reader: Reader, command: string): Node {
  if (command === 'mathbb' && reader.take(/\s*(?:\{\s*R\s*\}|R)/y)) return { kind: 'reals' };
  const raw = reader.rawArgument();
  return /^\s*[a-zA-Z][a-zA-Z .-]+[a-zA-Z.]\s*$/.test(raw) ? readUpright(reader, raw) : reader.inner(raw, readAll);
}

/** A decoration of a name is dropped: \overline{AB} = AB. */
function readDecorated(reader: Reader): Node {
  const raw = reader.rawArgument();
  if (!/^(?:[\sa-zA-Z'_]|\\[a-z]+)+$/.test(raw)) throw new ParseFailure();
  return reader.inner(raw, readAll);
}

const environments = /\s*\{\s*(?:[pbvBV]?matrix|smallmatrix|array|cases|aligned)\s*\}/y;

function readEnvironment(reader: Reader): Node {
  const environment = reader.expect(environments);
  if (environment.includes('array')) reader.take(/\s*\{[^{}]{0,40}\}/y);
  const rows = reader.bracketed(() => readRows(reader));
  if (/cases|aligned/.test(environment)) return { kind: 'list', items: rows.map(onlyEntry), joiner: 'and' };
  return { kind: 'matrix', rows };
}

function readRows(reader: Reader): Node[][] {
  const rows: Node[][] = [[]];
  for (;;) {
    if (reader.take(/\s*\\end\s*\{[a-zA-Z]+\}/y)) return rows;
    (rows.at(-1) as Node[]).push(readRelation(reader));
    if (reader.take(/\s*&/y)) continue;
    if (reader.take(/\s*,?\s*\\\\(?:\s*\[[^\]]{0,10}\])?/y)) {
      if (!reader.peek(/\s*\\end(?![a-zA-Z])/y)) rows.push([]);
    } else if (!reader.peek(/\s*\\end(?![a-zA-Z])/y)) {
      throw new ParseFailure();
    }
  }
}

function onlyEntry(row: Node[]): Node {
  if (row.length !== 1) throw new ParseFailure();
  return row[0] as Node;
}
