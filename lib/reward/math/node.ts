// What an answer is read into: expressions (values) and structures made of them.

import type { Rational } from '../rational.js';

/** `~` is ≈. */
export type Relation = '=' | '~' | '<' | '<=' | '>' | '>=' | '!=';

/** What stands between the items of a bare list; a word wins over commas. */
export type Joiner = 'comma' | 'and' | 'or';

export type Node =
  // expressions
  | { kind: 'number'; value: Rational; decimal: boolean; digits: string }
  | { kind: 'variable'; name: string }
  | { kind: 'constant'; name: 'pi' | 'e' | 'i' | 'infinity' }
  | { kind: 'sum'; terms: Node[] }
  | { kind: 'product'; factors: Node[] }
  | { kind: 'quotient'; over: Node; under: Node }
  | { kind: 'negative'; of: Node }
  | { kind: 'power'; base: Node; exponent: Node }
  | { kind: 'root'; degree: number; of: Node }
  | { kind: 'call'; name: string; of: Node; base?: Node }
  | { kind: 'degrees'; of: Node }
  | { kind: 'plusMinus'; of: Node; sign: 1 | -1 }
  // structures
  | { kind: 'percent'; of: Node }
  | { kind: 'inBase'; digits: string; base: string }
  | { kind: 'bracket'; open: '(' | '['; close: ')' | ']'; items: Node[] }
  | { kind: 'set'; items: Node[] }
  | { kind: 'list'; items: Node[]; joiner: Joiner }
  | { kind: 'ratio'; parts: Node[] }
  | { kind: 'union'; pieces: Node[] }
  | { kind: 'without'; from: Node; removed: Node }
  | { kind: 'reals' }
  | { kind: 'matrix'; rows: Node[][] }
  | { kind: 'relation'; sides: Node[]; operators: Relation[] }
  /** Words in lower case without spaces; a unit may be dropped behind a value. */
  | { kind: 'text'; text: string; unit: boolean }
  /** Something that is not understood: equal to nothing but the same characters. */
  | { kind: 'opaque'; text: string };

/** The nodes directly below a node. */
export function childrenOf(node: Node): Node[] {
  switch (node.kind) {
    case 'sum':
      return node.terms;
    case 'product':
      return node.factors;
    case 'quotient':
      return [node.over, node.under];
    case 'negative':
    case 'root':
    case 'degrees':
    case 'plusMinus':
    case 'percent':
      return [node.of];
    case 'power':
      return [node.base, node.exponent];
    case 'call':
      return node.base === undefined ? [node.of] : [node.of, node.base];
    case 'bracket':
    case 'set':
    case 'list':
      return node.items;
    case 'union':
      return node.pieces;
    case 'ratio':
      return node.parts;
    case 'without':
      return [node.from, node.removed];
    case 'matrix':
      return node.rows.flat();
    case 'relation':
      return node.sides;
    default:
      return [];
  }
}

/** The same node over other children. */
function withChildren(node: Node, map: (child: Node) => Node): Node {
  switch (node.kind) {
    case 'sum':
      return { ...node, terms: node.terms.map(map) };
    case 'product':
      return { ...node, factors: node.factors.map(map) };
    case 'quotient':
      return { ...node, over: map(node.over), under: map(node.under) };
    case 'negative':
    case 'root':
    case 'degrees':
    case 'plusMinus':
    case 'percent':
      return { ...node, of: map(node.of) };
    case 'power':
      return { ...node, base: map(node.base), exponent: map(node.exponent) };
    case 'call':
      return { ...node, of: map(node.of), base: node.base === undefined ? undefined : map(node.base) };
    case 'bracket':
    case 'set':
    case 'list':
      return { ...node, items: node.items.map(map) };
    case 'relation':
      return { ...node, sides: node.sides.map(map) };
    default:
      return node;
  }
}

/** Every node replaced, from the leaves up. */
export function mapNode(node: Node, map: (node: Node) => Node): Node {
  return map(withChildren(node, (child) => mapNode(child, map)));
}

/** Whether any node of the tree satisfies the test. */
export function someNode(node: Node, test: (node: Node) => boolean): boolean {
  return test(node) || childrenOf(node).some((child) => someNode(child, test));
}

/** A value: something that can be computed at a point, in contrast to a structure. */
export function isExpression(node: Node): boolean {
  return !someNode(node, (inner) => structureKinds.has(inner.kind));
}

const structureKinds = new Set<Node['kind']>([
  'plusMinus',
  'percent',
  'inBase',
  'bracket',
  'set',
  'list',
  'ratio',
  'union',
  'without',
  'reals',
  'matrix',
  'relation',
  'text',
  'opaque',
]);
