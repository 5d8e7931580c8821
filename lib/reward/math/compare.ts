// Whether a response's answer equals a gold one. The gold side is not symmetric with the response: an inequality as
// gold accepts an interval but not the reverse, and a gold `y = 3x − 4` accepts 3x − 4 alone.

import { type Budget, equal, equalToSixPlaces, rational } from '../rational.js';
import { approximateValue, exactValue, type Approximate } from './evaluate.js';
import { isExpression, type Node, type Relation, someNode, childrenOf } from './node.js';
import { asPieces, samePieces } from './intervals.js';

/** True only if the two are seen to be equal; whatever cannot be decided is false. */
export function sameAnswer(gold: Node, response: Node, budget: Budget): boolean {
  budget.spend();
  const g = simplify(gold);
  const r = simplify(response);

  if (r.kind === 'list' && isExpression(g)) {
    // "15 39/40 or 639/40" names one value twice; two different values would be a choice left to the reader.
    const [first, ...others] = r.items as [Node, ...Node[]];
    return sameAnswer(g, first, budget) && others.every((item) => sameValue(first, item, budget));
  }
  if (g.kind === 'percent' || r.kind === 'percent') return samePercent(g, r, budget);
  if (g.kind === 'inBase' || r.kind === 'inBase') return sameInBase(g, r);
  if (g.kind === 'list' || g.kind === 'set' || r.kind === 'list' || r.kind === 'set') {
    if (isRegion(g) || isRegion(r)) return sameRegion(g, r, budget);
    return sameCollection(g, r, budget);
  }
  if (g.kind === 'relation' || r.kind === 'relation') return sameRelation(g, r, budget);
  if (isRegion(g) || isRegion(r)) return sameRegion(g, r, budget);
  if (g.kind === 'bracket' && r.kind === 'bracket') return sameBracket(g, r, budget);
  if (g.kind === 'matrix' && r.kind === 'matrix') return sameMatrix(g, r, budget);
  if (g.kind === 'text' && r.kind === 'text') return g.text === r.text;
  if (g.kind === 'opaque' && r.kind === 'opaque') return g.text === r.text;
  return sameValue(g, r, budget);
}

/** ± becomes its two values; a set or list of one is its element; `a = b = c` is `a = c` or c. */
function simplify(node: Node): Node {
  if (node.kind === 'relation') {
    const signs = splitSigns(node);
    if (signs !== undefined) return { kind: 'list', items: signs };
    if (node.operators.length > 1 && node.operators.every((operator) => operator === '=')) {
      const [first, last] = [node.sides[0] as Node, node.sides.at(-1) as Node];
      return isName(first) ? { kind: 'relation', sides: [first, last], operators: ['='] } : simplify(last);
    }
    return node;
  }
  if (node.kind === 'list' || node.kind === 'set') {
    const items = node.items.flatMap((item) => splitSigns(item) ?? [item]);
    if (items.length === 1 && node.kind === 'list') return simplify(items[0] as Node);
    if (items.length === 1 && isExpression(items[0] as Node)) return items[0] as Node;
    return { kind: node.kind, items };
  }
  const signs = splitSigns(node);
  return signs === undefined ? node : { kind: 'list', items: signs };
}

function splitSigns(node: Node): Node[] | undefined {
  if (node.kind === 'bracket' || node.kind === 'matrix' || node.kind === 'union') return undefined;
  if (!someNode(node, (inner) => inner.kind === 'plusMinus')) return undefined;
  return [withSign(node, 1), withSign(node, -1)];
}

function withSign(node: Node, sign: 1 | -1): Node {
  if (node.kind === 'plusMinus') {
    const of = withSign(node.of, sign);
    return node.sign * sign === 1 ? of : { kind: 'negative', of };
  }
  const map = (inner: Node) => withSign(inner, sign);
  switch (node.kind) {
    case 'sum':
      return { ...node, terms: node.terms.map(map) };
    case 'product':
      return { ...node, factors: node.factors.map(map) };
    case 'quotient':
      return { ...node, over: map(node.over), under: map(node.under) };
    case 'power':
      return { ...node, base: map(node.base), exponent: map(node.exponent) };
    case 'relation':
      return { ...node, sides: node.sides.map(map) };
    case 'negative':
    case 'root':
    case 'degrees':
    case 'percent':
      return { ...node, of: map(node.of) };
    case 'call':
      return { ...node, of: map(node.of), base: node.base === undefined ? undefined : map(node.base) };
    default:
      return node;
  }
}

/** A gold 35 % accepts 35 and 0.35; a gold 35 or 0.35 accepts 35 %. */
function samePercent(gold: Node, response: Node, budget: Budget): boolean {
  if (gold.kind === 'percent' && response.kind === 'percent') return sameValue(gold.of, response.of, budget);
  const [percent, plain] = gold.kind === 'percent' ? [gold, response] : [response, gold];
  if (percent.kind !== 'percent') return false;
  const value = plain.kind === 'relation' ? valueNamed(plain) : plain;
  if (value === undefined) return false;
  const hundred: Node = { kind: 'number', value: rational(100n), decimal: false, digits: '100' };
  const share: Node = { kind: 'quotient', over: percent.of, under: hundred };
  return sameValue(percent.of, value, budget) || sameValue(share, value, budget);
}

/** Nothing is converted between bases: the digits must agree, and the base where both name one. */
function sameInBase(gold: Node, response: Node): boolean {
  const digitsOf = (node: Node) => {
    if (node.kind === 'inBase') return node.digits;
    return node.kind === 'number' ? node.digits : undefined;
  };
  if (gold.kind === 'inBase' && response.kind === 'inBase' && gold.base !== response.base) return false;
  const digits = digitsOf(gold);
  return digits !== undefined && digits !== '' && digits === digitsOf(response);
}

/** Sets and bare lists: any order, the same elements, as many. A bare list in the right order may stand for a tuple. */
function sameCollection(gold: Node, response: Node, budget: Budget): boolean {
  if (gold.kind === 'bracket' || response.kind === 'bracket') return sameSequence(gold, response, budget);
  const golds = itemsOf(gold);
  const responses = itemsOf(response);
  if (golds.length !== responses.length) return false;
  const left = [...responses];
  for (const item of golds) {
    const at = left.findIndex((candidate) => sameAnswer(item, candidate, budget));
    if (at === -1) return false;
    left.splice(at, 1);
  }
  return true;
}

function itemsOf(node: Node): Node[] {
  return node.kind === 'list' || node.kind === 'set' ? node.items : [node];
}

function sameSequence(gold: Node, response: Node, budget: Budget): boolean {
  // (x, y) against 3, −1, or x = 2, y = −5 against (2, −5); never a set against a tuple.
  if (gold.kind === 'set' || response.kind === 'set') return false;
  if (gold.kind === 'bracket' && response.kind === 'list' && gold.open === '(' && gold.close === ')') {
    return sameInOrder(gold.items, response.items, budget);
  }
  if (gold.kind === 'list' && response.kind === 'bracket' && response.open === '(' && response.close === ')') {
    const values = gold.items.map((item) => (item.kind === 'relation' ? valueNamed(item) : undefined));
    return values.every((value) => value !== undefined) && sameInOrder(values as Node[], response.items, budget);
  }
  return false;
}

function sameInOrder(golds: Node[], responses: Node[], budget: Budget): boolean {
  return golds.length === responses.length && golds.every((item, i) => sameAnswer(item, responses[i] as Node, budget));
}

function sameBracket(gold: Node & { kind: 'bracket' }, response: Node & { kind: 'bracket' }, budget: Budget): boolean {
  return (
    gold.open === response.open && gold.close === response.close && sameInOrder(gold.items, response.items, budget)
  );
}

function sameMatrix(gold: Node & { kind: 'matrix' }, response: Node & { kind: 'matrix' }, budget: Budget): boolean {
  return (
    gold.rows.length === response.rows.length &&
    gold.rows.every((row, i) => sameInOrder(row, response.rows[i] as Node[], budget))
  );
}

/** Intervals with an infinite end or mixed brackets, unions, ℝ and ℝ∖{a}. */
function isRegion(node: Node): boolean {
  return node.kind === 'union' || node.kind === 'without' || node.kind === 'reals';
}

function sameRegion(gold: Node, response: Node, budget: Budget): boolean {
  const goldPieces = asPieces(gold, budget, isRelational(gold));
  const responsePieces = asPieces(response, budget, false);
  return (
    goldPieces !== undefined &&
    responsePieces !== undefined &&
    samePieces(goldPieces, responsePieces, (a, b) => sameAnswer(a, b, budget))
  );
}

function isRelational(node: Node): boolean {
  return node.kind === 'relation' || (node.kind === 'list' && node.items.every((item) => item.kind === 'relation'));
}

function sameRelation(gold: Node, response: Node, budget: Budget): boolean {
  if (gold.kind === 'relation' && response.kind === 'relation') {
    return isEquation(gold) && isEquation(response)
      ? sameEquation(gold, response, budget)
      : sameInequality(gold, response, budget);
  }
  if (gold.kind === 'relation') {
    if (!isEquation(gold)) {
      const pieces = asPieces(gold, budget, true);
      const others = asPieces(response, budget, false);
      return (
        pieces !== undefined && others !== undefined && samePieces(pieces, others, (a, b) => sameAnswer(a, b, budget))
      );
    }
    const value = valueNamed(gold);
    return value !== undefined && sameAnswer(value, response, budget);
  }
  const value = valueNamed(response);
  return value !== undefined && sameAnswer(gold, value, budget);
}

function isEquation(node: Node): node is Node & { kind: 'relation' } {
  return node.kind === 'relation' && node.operators.length === 1 && node.operators[0] === '=';
}

/** The c of `name = c` (or `c = name`). */
function valueNamed(node: Node): Node | undefined {
  if (!isEquation(node)) return undefined;
  const [left, right] = node.sides as [Node, Node];
  if (isName(left)) return right;
  return isName(right) ? left : undefined;
}

/** Letters only: y, f(x), m/n, (x, y), Area. */
function isName(node: Node): boolean {
  const kinds = new Set<Node['kind']>([
    'variable',
    'product',
    'quotient',
    'bracket',
    'text',
    'constant',
    'sum',
    'negative',
  ]);
  return (
    kinds.has(node.kind) && !(node.kind === 'constant' && node.name === 'infinity') && childrenOf(node).every(isName)
  );
}

/** Equal up to swapping, moving terms and a constant factor: the quotient of the two differences is a number. */
function sameEquation(
  gold: Node & { kind: 'relation' },
  response: Node & { kind: 'relation' },
  budget: Budget,
): boolean {
  const [gl, gr] = gold.sides as [Node, Node];
  const [rl, rr] = response.sides as [Node, Node];
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

function sameInequality(
  gold: Node & { kind: 'relation' },
  response: Node & { kind: 'relation' },
  budget: Budget,
): boolean {
  const g = pointingRight(gold);
  const r = pointingRight(response);
  if (g === undefined || r === undefined || g.operators.length !== r.operators.length) return false;
  if (![...g.sides, ...r.sides].every((side) => isExpression(side))) return false;
  if (g.operators.some((operator, i) => operator !== r.operators[i])) return false;
  if (g.operators.length === 1) {
    const [gl, gr] = g.sides as [Node, Node];
    const [rl, rr] = r.sides as [Node, Node];
    const factor = constantFactor(minus(gr, gl), minus(rr, rl), budget);
    return factor !== undefined && (g.operators[0] === '!=' ? factor !== 0 : factor > 0);
  }
  return g.sides.every((side, i) => sameValue(side, r.sides[i] as Node, budget));
}

/** All signs as < or ≤; undefined for a mixture. */
function pointingRight(node: Node & { kind: 'relation' }): { sides: Node[]; operators: Relation[] } | undefined {
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

const numPoints = 7;
const neededPoints = 3;

/** response = factor · gold at every point; undefined if no such number is seen. */
function constantFactor(gold: Node, response: Node, budget: Budget): number | undefined {
  let factor: number | undefined;
  let tolerance = 0;
  let seen = 0;
  for (let point = 0; point < numPoints; point += 1) {
    const variables = (name: string) => coordinate(name, point);
    const a = approximateValue(gold, variables, budget);
    const b = approximateValue(response, variables, budget);
    if (!isUsable(a) || !isUsable(b) || a.im !== 0 || b.im !== 0) continue;
    if (Math.abs(a.re) < 1e-6 || Math.abs(b.re) < 1e-6) return undefined;
    const ratio = b.re / a.re;
    const error = Math.abs(ratio) * (a.error / Math.abs(a.re) + b.error / Math.abs(b.re)) + 1e-12 * Math.abs(ratio);
    if (factor === undefined) {
      factor = ratio;
      tolerance = error;
    } else if (Math.abs(ratio - factor) > 4 * (error + tolerance)) {
      return undefined;
    }
    seen += 1;
  }
  return seen >= neededPoints ? factor : undefined;
}

/** Two expressions, over the reals (over ℂ where i appears). */
export function sameValue(gold: Node, response: Node, budget: Budget): boolean {
  const infinities = [infinitySign(gold), infinitySign(response)];
  if (infinities[0] !== 0 || infinities[1] !== 0) return infinities[0] === infinities[1];
  if (!isExpression(gold) || !isExpression(response)) return false;
  const decimal = someNode(gold, isDecimal) || someNode(response, isDecimal);
  const constant = !someNode(gold, isVariable) && !someNode(response, isVariable);
  try {
    if (!constant) return sameFunction(gold, response, budget);
    const a = exactValue(gold, budget);
    const b = exactValue(response, budget);
    if (a !== undefined && b !== undefined) return decimal ? equalToSixPlaces(a, b) : equal(a, b);
    return sameConstant(gold, response, decimal, budget);
  } catch (error) {
    if (error instanceof RangeError) return false; // a division by zero
    throw error;
  }
}

const isDecimal = (node: Node) => node.kind === 'number' && node.decimal;
const isVariable = (node: Node) => node.kind === 'variable';

function infinitySign(node: Node): number {
  if (node.kind === 'constant' && node.name === 'infinity') return 1;
  return node.kind === 'negative' ? -infinitySign(node.of) : 0;
}

function sameConstant(gold: Node, response: Node, decimal: boolean, budget: Budget): boolean {
  const none = () => Number.NaN;
  const a = approximateValue(gold, none, budget);
  const b = approximateValue(response, none, budget);
  if (!isUsable(a) || !isUsable(b)) return false;
  if (decimal)
    return closeToSixPlaces(a.re, b.re, a.error + b.error) && closeToSixPlaces(a.im, b.im, a.error + b.error);
  return isNear(a, b);
}

function sameFunction(gold: Node, response: Node, budget: Budget): boolean {
  const complex = [gold, response].some((node) =>
    someNode(node, (inner) => inner.kind === 'constant' && inner.name === 'i'),
  );
  let seen = 0;
  for (let point = 0; point < numPoints; point += 1) {
    const variables = (name: string) => coordinate(name, point);
    const a = approximateValue(gold, variables, budget);
    const b = approximateValue(response, variables, budget);
    // Where one of them has no real value the point says nothing (√a√b = √(ab) for positive a, b).
    if (!isUsable(a) || !isUsable(b) || (!complex && (a.im !== 0 || b.im !== 0))) continue;
    if (!isNear(a, b)) return false;
    seen += 1;
  }
  return seen >= neededPoints;
}

/** Finite, and known to eight digits. */
function isUsable(a: Approximate): boolean {
  return Number.isFinite(a.re) && Number.isFinite(a.im) && a.error <= 1e-8 * (1 + Math.hypot(a.re, a.im));
}

function isNear(a: Approximate, b: Approximate): boolean {
  const distance = Math.hypot(a.re - b.re, a.im - b.im);
  return distance <= 8 * (a.error + b.error) + 1e-13 * Math.min(Math.hypot(a.re, a.im), Math.hypot(b.re, b.im));
}

function closeToSixPlaces(a: number, b: number, error: number): boolean {
  const size = Math.min(Math.abs(a), Math.abs(b));
  if (Math.max(Math.abs(a), Math.abs(b)) <= 4 * error) return true;
  const places = size >= 0.001 ? 6 : 5 - Math.floor(Math.log10(size === 0 ? Math.max(Math.abs(a), Math.abs(b)) : size));
  const scale = 10 ** places;
  return Number.isFinite(scale) && Math.round(a * scale) === Math.round(b * scale);
}

/** A fixed number for a name at a point, between 0.3 and 3.1, negative at every other point. */
function coordinate(name: string, point: number): number {
  let hash = 0x811c9dc5 ^ (point * 0x9e3779b1);
  for (let i = 0; i < name.length; i += 1) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  const share = ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
  const size = 0.3 + 2.8 * share;
  return point % 2 === 0 ? size : share > 0.5 ? -size : size * 0.7;
}
