// Whether two expressions are equal: exactly where both are rational, else at fixed points with an error bound.

import { type Budget, equal, equalToSixPlaces } from '../rational.js';
import { approximateValue, type Approximate, nowhere, type Point } from './approximate.js';
import { exactValue } from './exact.js';
import { isExpression, type Node, someNode } from './node.js';
import { preciseValue, samePrecise } from './precise.js';

const enoughPoints = 7;
const neededPoints = 3;
const maxPoints = 28;

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
const hasImaginaryUnit = (node: Node) => someNode(node, (inner) => inner.kind === 'constant' && inner.name === 'i');

/** 1 or −1 for ∞ and −∞, else 0. */
export function infinitySign(node: Node): number {
  if (node.kind === 'constant' && node.name === 'infinity') return 1;
  return node.kind === 'negative' ? -infinitySign(node.of) : 0;
}

function sameConstant(gold: Node, response: Node, decimal: boolean, budget: Budget): boolean {
  const real = approximateValue(gold, nowhere, budget);
  const complex = !isUsable(real) || hasImaginaryUnit(gold) || hasImaginaryUnit(response);
  const a = complex ? approximateValue(gold, { ...nowhere, complex }, budget) : real;
  const b = approximateValue(response, { ...nowhere, complex }, budget);
  if (!isUsable(a) || !isUsable(b)) return false;
  if (decimal)
    return closeToSixPlaces(a.re, b.re, a.error + b.error) && closeToSixPlaces(a.im, b.im, a.error + b.error);
  return isNear(a, b) && (complex || agreePrecisely(gold, response, nowhere, budget));
}

/** Whether what is equal to doubles is equal to ninety digits; yes where that is not known. */
function agreePrecisely(gold: Node, response: Node, { numberOf }: Point, budget: Budget): boolean {
  const a = preciseValue(gold, numberOf, budget);
  const b = a && preciseValue(response, numberOf, budget);
  return a === undefined || b === undefined || (samePrecise(a, b) ?? true);
}

function sameFunction(gold: Node, response: Node, budget: Budget): boolean {
  const complex = hasImaginaryUnit(gold) || hasImaginaryUnit(response);
  const strict = someNode(gold, (inner) => inner.kind === 'call' && inner.name === 'abs');
  let seen = 0;
  for (const point of points(complex)) {
    const a = approximateValue(gold, point, budget);
    const b = approximateValue(response, point, budget);
    // Where one has no value the point says nothing (ln x + ln y = ln xy), unless the gold writes ln |x| on purpose.
    if (!isUsable(a) || (!isUsable(b) && !strict)) continue;
    if (!isUsable(b) || !isNear(a, b)) return false;
    if (!complex && !agreePrecisely(gold, response, point, budget)) return false;
    seen += 1;
    if (seen === enoughPoints) break;
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

/** response = factor · gold at every point; undefined if no such number is seen. */
export function constantFactor(gold: Node, response: Node, budget: Budget): number | undefined {
  let factor: number | undefined;
  let tolerance = 0;
  let seen = 0;
  for (const point of points(false)) {
    const a = approximateValue(gold, point, budget);
    if (!isUsable(a)) continue;
    const b = approximateValue(response, point, budget);
    if (!isUsable(b) || Math.abs(a.re) < 1e-6 || Math.abs(b.re) < 1e-6) return undefined;
    const ratio = b.re / a.re;
    const error = Math.abs(ratio) * (a.error / Math.abs(a.re) + b.error / Math.abs(b.re)) + 1e-12 * Math.abs(ratio);
    if (factor === undefined) {
      factor = ratio;
      tolerance = error;
    } else if (Math.abs(ratio - factor) > 4 * (error + tolerance)) {
      return undefined;
    }
    seen += 1;
    if (seen === enoughPoints) break;
  }
  return seen >= neededPoints ? factor : undefined;
}

function* points(complex: boolean): Generator<Point> {
  for (let i = 0; i < maxPoints; i += 1) yield { numberOf: (name) => coordinate(name, i), complex };
}

/**
 * A fixed number for a name at a point. The first seven points lie between 0.3 and 3.1, every other one negative; then
 * come smaller and larger ones for functions with a narrow domain, and at last whole numbers for (−1)^n.
 */
function coordinate(name: string, point: number): number {
  let hash = 0x811c9dc5 ^ (point * 0x9e3779b1);
  for (let i = 0; i < name.length; i += 1) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  const share = ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32;
  if (point >= 21) return 1 + Math.floor(6 * share);
  const size = point < 7 ? 0.3 + 2.8 * share : point < 14 ? 0.05 + 0.9 * share : 3 + 17 * share;
  return point % 2 === 0 ? size : share > 0.5 ? -size : size * 0.7;
}

/** Whether a value rounds to the decimal that is shown for it: √2 ≈ 1.414. */
export function sameRounded(value: Node, shown: Node, budget: Budget): boolean {
  if (!isExpression(value) || !isExpression(shown) || someNode(value, isVariable)) return false;
  const digits = shown.kind === 'number' ? (shown.digits.split('.')[1]?.length ?? 0) : 6;
  const a = approximateValue(value, nowhere, budget);
  const b = approximateValue(shown, nowhere, budget);
  return isUsable(a) && isUsable(b) && Math.hypot(a.re - b.re, a.im - b.im) <= 0.5001 * 10 ** -digits;
}
