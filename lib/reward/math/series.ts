// Σ and Π with whole bounds, written out term by term: \sum_{k=1}^{10} k is 1 + 2 + … + 10.

import { readProduct } from './expression.js';
import { mapNode, type Node } from './node.js';
import { numberNode } from './numbers.js';
import { ParseFailure, type Reader } from './reader.js';

const maxTerms = 200;

export function readSeries(reader: Reader, name: 'sum' | 'prod'): Node {
  const from = /^\s*([a-zA-Z])\s*=\s*(\d{1,6})\s*$/.exec(limit(reader, /\s*_/y));
  const to = /^\s*(\d{1,6})\s*$/.exec(limit(reader, /\s*\^/y));
  if (from === null || to === null) throw new ParseFailure();
  const [, index, first] = from;
  const of = reader.nested(() => readProduct(reader));
  const count = Number(to[1]) - Number(first) + 1;
  if (count < 1 || count > maxTerms) throw new ParseFailure();
  const terms = Array.from({ length: count }, (_, i) => {
    const value = numberNode(String(Number(first) + i));
    return mapNode(of, (node) => {
      reader.budget.spend();
      return (node.kind === 'variable' || node.kind === 'constant') && node.name === index ? value : node;
    });
  });
  return name === 'sum' ? { kind: 'sum', terms } : { kind: 'product', factors: terms };
}

function limit(reader: Reader, sign: RegExp): string {
  reader.expect(sign);
  return reader.rawArgument();
}
