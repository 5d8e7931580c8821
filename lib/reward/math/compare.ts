// Whether a response's answer equals a gold one: sets, lists, tuples, matrices, ratios; relations.ts and values.ts
// compare what stands in them, which may hold structures again.

import { type Budget, rational } from '../rational.js';
import { isExpression, mapNode, type Node, someNode } from './node.js';
import {
  isEquation,
  isInequalities,
  isName,
  lastOfChain,
  sameEquation,
  sameInequalities,
  sameRegion,
  valueNamed,
} from './relations.js';
import { infinitySign, sameValue } from './values.js';

/** True only if the two are seen to be equal; whatever cannot be decided is false. */
export function sameAnswer(gold: Node, response: Node, budget: Budget): boolean {
  budget.spend();
  const g = simplify(gold, budget);
  const r = simplify(response, budget);

  if (r.kind === 'list' && isExpression(g)) {
    // "15 39/40 or 639/40" names one value twice; two different values would be a choice left to the reader.
    const [first, ...others] = r.items as [Node, ...Node[]];
    return sameAnswer(g, first, budget) && others.every((item) => sameValue(first, item, budget));
  }
  if (isEquation(g) !== isEquation(r)) {
    // y = 3x − 4 against 3x − 4: the name may be left out on either side.
    const [value, other] = [valueNamed(g), valueNamed(r)];
    if (value !== undefined) return sameAnswer(value, r, budget);
    return other !== undefined && sameAnswer(g, other, budget);
  }
  if (g.kind === 'percent' || r.kind === 'percent') return samePercent(g, r, budget);
  if (g.kind === 'inBase' || r.kind === 'inBase') return sameInBase(g, r);
  if (isInequalities(g) || isInequalities(r)) {
    const likeLists = g.kind === 'list' && r.kind === 'list' && g.joiner === r.joiner;
    return sameInequalities(g, r, budget) || (likeLists && sameCollection(g, r, budget));
  }
  if (isCollection(g) || isCollection(r)) {
    return isRegion(g) || isRegion(r) ? sameRegion(g, r, budget) : sameCollection(g, r, budget);
  }
  if (isEquation(g) && isEquation(r)) return sameEquation(g, r, budget);
  if (isRegion(g) || isRegion(r)) return sameRegion(g, r, budget);
  if (g.kind === 'bracket' && r.kind === 'bracket') {
    return g.open === r.open && g.close === r.close && sameInOrder(g.items, r.items, budget);
  }
  if (g.kind === 'ratio' && r.kind === 'ratio') return sameRatio(g.parts, r.parts, budget);
  if (g.kind === 'matrix' && r.kind === 'matrix') return sameMatrix(g, r, budget);
  if (g.kind === 'text' || r.kind === 'text') return lettersOf(g) !== undefined && lettersOf(g) === lettersOf(r);
  if (g.kind === 'opaque' && r.kind === 'opaque') return g.text !== '' && g.text === r.text;
  return sameValue(g, r, budget);
}

/** ± becomes its two values, a set or list of one its element, a factor of a matrix goes into its entries. */
function simplify(node: Node, budget: Budget): Node {
  const signs = splitSigns(node);
  if (signs !== undefined) return simplify({ kind: 'list', items: signs, joiner: 'and' }, budget);
  if (node.kind === 'relation') {
    const pairs = asEquations(node);
    return pairs === undefined ? lastOfChain(node, budget) : pairs;
  }
  if (node.kind === 'list' || node.kind === 'set') {
    const items = node.items.flatMap((item) => splitSigns(item) ?? [item]);
    return items.length === 1 ? simplify(items[0] as Node, budget) : { ...node, items };
  }
  return scaledMatrix(node) ?? node;
}

function splitSigns(node: Node): Node[] | undefined {
  const holds = node.kind === 'bracket' && (node.open === '[' || node.close === ']');
  if (holds || ['set', 'list', 'matrix', 'union', 'opaque', 'text'].includes(node.kind)) return undefined;
  if (!someNode(node, (inner) => inner.kind === 'plusMinus')) return undefined;
  return [withSign(node, 1), withSign(node, -1)];
}

function withSign(node: Node, sign: 1 | -1): Node {
  return mapNode(node, (inner) => {
    if (inner.kind !== 'plusMinus') return inner;
    return inner.sign === sign ? inner.of : { kind: 'negative', of: inner.of };
  });
}

/** (x, y) = (2, −5) is x = 2, y = −5. */
function asEquations(node: Node & { kind: 'relation' }): Node | undefined {
  const [left, right] = node.sides as [Node, Node];
  if (!isEquation(node) || left.kind !== 'bracket' || right.kind !== 'bracket') return undefined;
  if (left.items.length !== right.items.length || !left.items.every(isName)) return undefined;
  const items = left.items.map(
    (name, i): Node => ({ kind: 'relation', sides: [name, right.items[i] as Node], operators: ['='] }),
  );
  return { kind: 'list', items, joiner: 'and' };
}

function scaledMatrix(node: Node): Node | undefined {
  if (node.kind === 'negative' && node.of.kind === 'matrix')
    return mapEntries(node.of, (of) => ({ kind: 'negative', of }));
  if (node.kind !== 'product') return undefined;
  const matrices = node.factors.filter((factor) => factor.kind === 'matrix');
  const others = node.factors.filter((factor) => factor.kind !== 'matrix');
  const [matrix] = matrices;
  if (matrix?.kind !== 'matrix' || matrices.length > 1) return undefined;
  return mapEntries(matrix, (entry) => ({ kind: 'product', factors: [...others, entry] }));
}

function mapEntries(matrix: Node & { kind: 'matrix' }, map: (entry: Node) => Node): Node {
  return { kind: 'matrix', rows: matrix.rows.map((row) => row.map(map)) };
}

/** A gold 35 % accepts 35 and 0.35; a gold 35 or 0.35 accepts 35 %. */
function samePercent(gold: Node, response: Node, budget: Budget): boolean {
  if (gold.kind === 'percent' && response.kind === 'percent') return sameValue(gold.of, response.of, budget);
  const [percent, plain] = gold.kind === 'percent' ? [gold, response] : [response, gold];
  if (percent.kind !== 'percent') return false;
  const hundred: Node = { kind: 'number', value: rational(100n), decimal: false, digits: '100' };
  const share: Node = { kind: 'quotient', over: percent.of, under: hundred };
  return sameValue(percent.of, plain, budget) || sameValue(share, plain, budget);
}

/** Nothing is converted between bases: the digits must agree, and the base where both name one. */
function sameInBase(gold: Node, response: Node): boolean {
  if (gold.kind === 'inBase' && response.kind === 'inBase' && gold.base !== response.base) return false;
  const digits = digitsOf(gold);
  return digits !== undefined && digits !== '' && digits === digitsOf(response);
}

/** 1A without its base is read as a product of 1 and A. */
function digitsOf(node: Node): string | undefined {
  if (node.kind === 'inBase' || node.kind === 'number') return node.digits;
  if (node.kind === 'variable' && /^[a-fA-F]$/.test(node.name)) return node.name.toUpperCase();
  if (node.kind === 'constant' && node.name === 'e') return 'E';
  if (node.kind !== 'product') return undefined;
  const digits = node.factors.map(digitsOf);
  return digits.every((digit) => digit !== undefined) ? digits.join('') : undefined;
}

/** Words in lower case; a product of single letters is one too: \text{AB} is AB. */
function lettersOf(node: Node): string | undefined {
  if (node.kind === 'text') return node.text;
  if (node.kind === 'variable') return node.name.toLowerCase();
  if (node.kind === 'constant') return node.name;
  if (node.kind !== 'product') return undefined;
  const letters = node.factors.map(lettersOf);
  return letters.every((letter) => letter !== undefined) ? letters.join('') : undefined;
}

function isCollection(node: Node): node is Node & { kind: 'list' | 'set' } {
  return node.kind === 'list' || node.kind === 'set';
}

/** Sets and bare lists: any order, the same elements, as many. A bare list in the right order may stand for a tuple. */
function sameCollection(gold: Node, response: Node, budget: Budget): boolean {
  if (gold.kind === 'bracket' || response.kind === 'bracket') return sameSequence(gold, response, budget);
  const golds = itemsOf(gold);
  const responses = itemsOf(response);
  if (golds.length !== responses.length) return false;
  // x = 2, y = −5 against 2, −5: the names are left out, so the order says which is which.
  if (namesDiffer(golds) && responses.some((item) => !isEquation(item))) return sameInOrder(golds, responses, budget);
  const left = [...responses];
  for (const item of golds) {
    const at = left.findIndex((candidate) => sameAnswer(item, candidate, budget));
    if (at === -1) return false;
    left.splice(at, 1);
  }
  return true;
}

function itemsOf(node: Node): Node[] {
  return isCollection(node) ? node.items : [node];
}

/** Whether equations name different things: x and y, but not x₁ and x₂. */
function namesDiffer(items: Node[]): boolean {
  const names = items.map(nameOf);
  return names.every((name) => name !== undefined) && new Set(names.map((name) => name?.split('_')[0])).size > 1;
}

function nameOf(node: Node): string | undefined {
  const left = isEquation(node) ? (node.sides[0] as Node) : undefined;
  return left?.kind === 'variable' ? left.name : undefined;
}

/** (3, −1) against 3, −1 or x = 3, y = −1; never a set against a tuple. */
function sameSequence(gold: Node, response: Node, budget: Budget): boolean {
  const [g, r] = [tupleItems(gold), tupleItems(response)];
  return g !== undefined && r !== undefined && sameInOrder(g, r, budget);
}

function tupleItems(node: Node): Node[] | undefined {
  if (node.kind === 'bracket') {
    const isInterval = node.open !== '(' || node.close !== ')' || node.items.some((item) => infinitySign(item) !== 0);
    return isInterval ? undefined : node.items;
  }
  if (node.kind !== 'list') return undefined;
  if (!namesDiffer(node.items)) return node.items.map((item) => valueNamed(item) ?? item);
  return [...node.items]
    .sort((a, b) => ((nameOf(a) as string) < (nameOf(b) as string) ? -1 : 1))
    .map((item) => valueNamed(item) as Node);
}

function sameInOrder(golds: Node[], responses: Node[], budget: Budget): boolean {
  return golds.length === responses.length && golds.every((item, i) => sameAnswer(item, responses[i] as Node, budget));
}

function sameRatio(golds: Node[], responses: Node[], budget: Budget): boolean {
  const toFirst = (parts: Node[]) => parts.map((over): Node => ({ kind: 'quotient', over, under: parts[0] as Node }));
  return sameInOrder(toFirst(golds), toFirst(responses), budget);
}

function sameMatrix(gold: Node & { kind: 'matrix' }, response: Node & { kind: 'matrix' }, budget: Budget): boolean {
  return (
    gold.rows.length === response.rows.length &&
    gold.rows.every((row, i) => sameInOrder(row, response.rows[i] as Node[], budget))
  );
}

/** Unions, ℝ and ℝ∖{a}; a single pair of brackets may also be a tuple. */
function isRegion(node: Node): boolean {
  return node.kind === 'union' || node.kind === 'without' || node.kind === 'reals';
}
