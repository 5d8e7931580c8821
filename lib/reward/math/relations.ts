// Equations and inequalities. The gold side is not symmetric with the response: an inequality as gold accepts an
// interval but not the reverse, and a gold `y = 3x − 4` accepts 3x − 4 alone.

import type { Budget } from '../rational.js';
import { sameAnswer } from './compare.js';
import { asPieces, samePieces } from './intervals.js';
import { childrenOf, isExpression, type Node, type Relation, someNode } from './node.js';
import { constantFactor, sameRounded, sameValue } from './values.js';

type RelationNode = Node & { kind: 'relation' };

/** Where one of the two, or both, is an inequality or a list of them. */
export function sameInequalities(gold: Node, response: Node, budget: Budget): boolean {
  const both = gold.kind === 'relation' && response.kind === 'relation';
  return (both && sameInequality(gold, response, budget)) || sameRegion(gold, response, budget);
}

/** As sets of reals. Inequalities are read as such only beside inequalities, and in one and the same variable. */
export function sameRegion(gold: Node, response: Node, budget: Budget): boolean {
  if (isInequalities(response) && !(isInequalities(gold) && sameVariable(gold, response))) return false;
  const goldPieces = asPieces(gold, budget);
  const responsePieces = asPieces(response, budget);
  return (
    goldPieces !== undefined &&
    responsePieces !== undefined &&
    samePieces(goldPieces, responsePieces, (a, b) => sameAnswer(a, b, budget))
  );
}

export function isInequalities(node: Node): boolean {
  if (node.kind === 'relation') return !isEquation(node);
  return node.kind === 'list' && node.items.every(isInequalities);
}

function sameVariable(a: Node, b: Node): boolean {
  return new Set([...variablesOf(a), ...variablesOf(b)]).size === 1;
}

function variablesOf(node: Node): string[] {
  return node.kind === 'variable' ? [node.name] : childrenOf(node).flatMap(variablesOf);
}

export function isEquation(node: Node): node is RelationNode {
  return node.kind === 'relation' && node.operators.length === 1 && node.operators[0] === '=';
}

/** The c of `name = c` (or `c = name`). */
export function valueNamed(node: Node): Node | undefined {
  if (!isEquation(node)) return undefined;
  const [left, right] = node.sides as [Node, Node];
  if (isName(left) && !isOwnValue(left, right)) return right;
  return isName(right) && !isOwnValue(right, left) ? left : undefined;
}

/** x = 2x³ − 1 is an equation for x, and names nothing. */
function isOwnValue(name: Node, value: Node): boolean {
  return name.kind === 'variable' && someNode(value, (inner) => inner.kind === 'variable' && inner.name === name.name);
}

const nameKinds = new Set<Node['kind']>([
  ...(['variable', 'product', 'quotient', 'bracket', 'text', 'sum', 'negative', 'call', 'power', 'constant'] as const),
]);

/** Letters only: y, f(x), m/n, (x, y), cos θ, Area. */
export function isName(node: Node): boolean {
  if (node.kind === 'constant') return node.name === 'e' || node.name === 'i';
  return nameKinds.has(node.kind) && childrenOf(node).every(isName);
}

/**
 * A chain `a = b = c` is `a = c` where a is a name, else c. An equation of numbers that holds (6 · 7 = 42) is its right
 * side, one that does not is left as it is. `x ≈ c` is `x = c`, and `√2 ≈ 1.414` is √2 if it rounds so.
 */
export function lastOfChain(node: RelationNode, budget: Budget): Node {
  const { sides, operators } = node;
  if (!operators.every((operator) => operator === '=' || operator === '~')) return node;
  const [first, last] = [sides[0] as Node, sides.at(-1) as Node];
  let value = last;
  if (operators.at(-1) === '~' && !isName(sides.at(-2) as Node)) {
    value = sides.at(-2) as Node;
    if (!sameRounded(value, last, budget)) return { kind: 'opaque', text: '' };
  }
  if (isName(first)) return { kind: 'relation', sides: [first, value], operators: ['='] };
  if (operators.length > 1) return value;
  return isNumber(first) && isNumber(last) && (value === first || sameValue(first, last, budget)) ? value : node;
}

const isNumber = (node: Node) => isExpression(node) && !someNode(node, (inner) => inner.kind === 'variable');

/** Equal up to swapping, moving terms and a constant factor: the quotient of the two differences is a number. */
export function sameEquation(gold: RelationNode, response: RelationNode, budget: Budget): boolean {
  const [gl, gr] = gold.sides as [Node, Node];
  const [rl, rr] = response.sides as [Node, Node];
  // x = 7/3 and x = 2.333333: where the names agree the values are compared as values.
  if (isName(gl) && isName(rl) && sameAnswer(gl, rl, budget) && sameAnswer(gr, rr, budget)) return true;
  if (![gl, gr, rl, rr].every(isExpression)) {
    return (
      (sameAnswer(gl, rl, budget) && sameAnswer(gr, rr, budget)) ||
      (sameAnswer(gl, rr, budget) && sameAnswer(gr, rl, budget))
    );
  }
  const factor = constantFactor(minus(gl, gr), minus(rl, rr), budget);
  return factor !== undefined && factor !== 0;
}

const minus = (a: Node, b: Node): Node => ({ kind: 'sum', terms: [a, { kind: 'negative', of: b }] });

/** The same signs, and the differences between neighbours equal up to one positive factor. */
function sameInequality(gold: RelationNode, response: RelationNode, budget: Budget): boolean {
  const g = pointingRight(gold);
  const r = pointingRight(response);
  if (g === undefined || r === undefined || g.operators.length !== r.operators.length) return false;
  if (![...g.sides, ...r.sides].every((side) => isExpression(side))) return false;
  if (g.operators.some((operator, i) => operator !== r.operators[i])) return false;
  const factors = g.operators.map((_, i) =>
    constantFactor(
      minus(g.sides[i + 1] as Node, g.sides[i] as Node),
      minus(r.sides[i + 1] as Node, r.sides[i] as Node),
      budget,
    ),
  );
  if (g.operators[0] === '!=') return factors[0] !== undefined && factors[0] !== 0;
  const [first] = factors;
  return first !== undefined && factors.every((f) => f !== undefined && f > 0 && Math.abs(f / first - 1) < 1e-9);
}

/** All signs as < or ≤; undefined for a mixture. */
function pointingRight(node: RelationNode): { sides: Node[]; operators: Relation[] } | undefined {
  if (node.operators.every((operator) => operator === '<' || operator === '<=')) return node;
  if (node.operators.length === 1 && node.operators[0] === '!=') return node;
  if (node.operators.every((operator) => operator === '>' || operator === '>=')) {
    return {
      sides: [...node.sides].reverse(),
      operators: [...node.operators].reverse().map((operator) => (operator === '>' ? '<' : '<=')),
    };
  }
  return undefined;
}
