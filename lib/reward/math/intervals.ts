// Subsets of the real line as sorted, disjoint pieces, so that unions are compared as sets.

import type { Budget } from '../rational.js';
import { approximateValue, nowhere } from './approximate.js';
import { isExpression, type Node } from './node.js';

export interface Piece {
  from: Node;
  to: Node;
  fromClosed: boolean;
  toClosed: boolean;
  /** The ends as numbers, for sorting. */
  low: number;
  high: number;
}

const infinity: Node = { kind: 'constant', name: 'infinity' };
const minusInfinity: Node = { kind: 'negative', of: infinity };

/** Undefined if the node is no subset of the real line; x > 2 and 1 < x ≤ 3 are. */
export function asPieces(node: Node, budget: Budget): Piece[] | undefined {
  const pieces = collect(node, budget);
  return pieces === undefined ? undefined : merge(pieces);
}

export function samePieces(a: Piece[], b: Piece[], sameEnd: (a: Node, b: Node) => boolean): boolean {
  return (
    a.length === b.length &&
    a.every((piece, i) => {
      const other = b[i] as Piece;
      return (
        piece.fromClosed === other.fromClosed &&
        piece.toClosed === other.toClosed &&
        sameEnd(piece.from, other.from) &&
        sameEnd(piece.to, other.to)
      );
    })
  );
}

function collect(node: Node, budget: Budget): Piece[] | undefined {
  switch (node.kind) {
    case 'reals':
      return [piece(minusInfinity, infinity, false, false, budget) as Piece];
    case 'bracket': {
      if (node.items.length !== 2) return undefined;
      const [from, to] = node.items as [Node, Node];
      const own = piece(from, to, node.open === '[', node.close === ']', budget);
      return own === undefined ? undefined : [own];
    }
    case 'set': {
      const points = node.items.map((item) => piece(item, item, true, true, budget));
      return points.every((point) => point !== undefined) ? (points as Piece[]) : undefined;
    }
    case 'union':
      return all(node.pieces.map((inner) => collect(inner, budget)));
    case 'list':
      return node.items.every((item) => item.kind === 'relation') ? joined(node, budget) : undefined;
    case 'without':
      return without(node.from, node.removed, budget);
    case 'relation':
      return fromRelation(node, budget);
    default:
      return undefined;
  }
}

/** "x < 1 or x > 3" is a union, "x > 1 and x < 3" an intersection, and a comma either, whichever is not empty. */
function joined(node: Node & { kind: 'list' }, budget: Budget): Piece[] | undefined {
  const parts = node.items.map((inner) => collect(inner, budget));
  if (!parts.every((part) => part !== undefined)) return undefined;
  const common = node.joiner === 'or' ? [] : parts.reduce(intersect);
  if (common.length > 0) return common;
  return node.joiner === 'and' ? undefined : parts.flat();
}

function intersect(a: Piece[], b: Piece[]): Piece[] {
  return a.flatMap((left) =>
    b.flatMap((right) => {
      const later = left.low > right.low || (left.low === right.low && right.fromClosed) ? left : right;
      const earlier = left.high < right.high || (left.high === right.high && right.toClosed) ? left : right;
      const { from, low, fromClosed } = later;
      const { to, high, toClosed } = earlier;
      const isEmpty = low > high || (low === high && !(fromClosed && toClosed));
      return isEmpty ? [] : [{ from, to, low, high, fromClosed, toClosed }];
    }),
  );
}

function all(parts: (Piece[] | undefined)[]): Piece[] | undefined {
  return parts.every((part) => part !== undefined) ? (parts as Piece[][]).flat() : undefined;
}

/** What of one region does not belong to the other: ℝ∖{a, b}, ℝ∖[a, b). */
function without(from: Node, removed: Node, budget: Budget): Piece[] | undefined {
  const whole = collect(from, budget);
  const hole = isExpression(removed) ? collect({ kind: 'set', items: [removed] }, budget) : collect(removed, budget);
  if (whole === undefined || hole === undefined) return undefined;
  const holes = merge(hole);
  const gaps = [...holes, undefined].map((next, i): Piece => {
    const last = holes[i - 1];
    return {
      from: last?.to ?? minusInfinity,
      low: last?.high ?? Number.NEGATIVE_INFINITY,
      fromClosed: last !== undefined && !last.toClosed,
      to: next?.from ?? infinity,
      high: next?.low ?? Number.POSITIVE_INFINITY,
      toClosed: next !== undefined && !next.fromClosed,
    };
  });
  return intersect(whole, gaps);
}

/** x > 2, 2 < x, 1 < x ≤ 3, their mirror images and x ≠ 2. */
function fromRelation(node: Node & { kind: 'relation' }, budget: Budget): Piece[] | undefined {
  if (node.operators[0] === '!=') {
    const point = node.sides.find((side) => side.kind !== 'variable');
    return point === undefined || node.sides.length > 2 ? undefined : without({ kind: 'reals' }, point, budget);
  }
  const leftward = node.operators.every((operator) => operator === '>' || operator === '>=');
  const rightward = node.operators.every((operator) => operator === '<' || operator === '<=');
  if (!leftward && !rightward) return undefined;
  const sides = leftward ? [...node.sides].reverse() : node.sides;
  const closed = (leftward ? [...node.operators].reverse() : node.operators).map((operator) => operator.length === 2);
  const at = sides.findIndex((side) => side.kind === 'variable');
  if (sides.length === 3 && at === 1) {
    const own = piece(sides[0] as Node, sides[2] as Node, closed[0] as boolean, closed[1] as boolean, budget);
    return own === undefined ? undefined : [own];
  }
  if (sides.length !== 2 || at === -1) return undefined;
  const own =
    at === 0
      ? piece(minusInfinity, sides[1] as Node, false, closed[0] as boolean, budget)
      : piece(sides[0] as Node, infinity, closed[0] as boolean, false, budget);
  return own === undefined ? undefined : [own];
}

function piece(from: Node, to: Node, fromClosed: boolean, toClosed: boolean, budget: Budget): Piece | undefined {
  const low = numberOf(from, budget);
  const high = numberOf(to, budget);
  if (Number.isNaN(low) || Number.isNaN(high) || low > high) return undefined;
  return { from, to, fromClosed, toClosed, low, high };
}

function numberOf(node: Node, budget: Budget): number {
  if (node.kind === 'constant' && node.name === 'infinity') return Number.POSITIVE_INFINITY;
  if (node.kind === 'negative' && node.of.kind === 'constant' && node.of.name === 'infinity')
    return Number.NEGATIVE_INFINITY;
  if (!isExpression(node)) return Number.NaN;
  const value = approximateValue(node, nowhere, budget);
  return value.re;
}

/** Sorted; pieces that touch or overlap become one. */
function merge(pieces: Piece[]): Piece[] {
  const sorted = [...pieces].sort((a, b) => a.low - b.low || Number(b.fromClosed) - Number(a.fromClosed));
  const merged: Piece[] = [];
  for (const next of sorted) {
    const last = merged.at(-1);
    const joins =
      last !== undefined && (next.low < last.high || (next.low === last.high && (next.fromClosed || last.toClosed)));
    if (last === undefined || !joins) {
      merged.push({ ...next });
    } else if (next.high > last.high || (next.high === last.high && next.toClosed)) {
      Object.assign(last, { to: next.to, high: next.high, toClosed: next.toClosed });
    }
  }
  return merged;
}
