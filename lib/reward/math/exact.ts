// The value of an expression as an exact rational, where it is seen to have one.

import {
  add,
  BoundError,
  type Budget,
  bitLength,
  compare,
  divide,
  equal,
  gcd,
  isInteger,
  maxBits,
  multiply,
  negate,
  nthRoot,
  one,
  power,
  type Rational,
  rational,
  zero,
} from '../rational.js';
import type { Node } from './node.js';

/** Of an exact root; beyond it Newton's iteration takes many steps. */
const maxDegree = 64;

/** The exact rational value; undefined if there is none (variables, surds, π) or if it is not seen to be rational. */
export function exactValue(node: Node, budget: Budget): Rational | undefined {
  const value = exact(node, budget);
  if (value !== undefined) pay(value, budget);
  return value;
}

/** Long numbers cost more: about what multiplying and reducing them takes. */
function pay(value: Rational, budget: Budget): void {
  budget.spend(1 + Math.ceil((bitLength(value.n) + bitLength(value.d)) ** 2 / 2 ** 18));
}

function exact(node: Node, budget: Budget): Rational | undefined {
  switch (node.kind) {
    case 'number':
      return node.value;
    case 'sum':
      return fold(node.terms, zero, add, budget);
    case 'product':
      return fold(node.factors, one, multiply, budget);
    case 'quotient': {
      const over = exactValue(node.over, budget);
      const under = exactValue(node.under, budget);
      return over === undefined || under === undefined ? undefined : divide(over, under);
    }
    case 'negative': {
      const of = exactValue(node.of, budget);
      return of === undefined ? undefined : negate(of);
    }
    case 'degrees':
      return exactValue(node.of, budget);
    case 'root': {
      const of = exactValue(node.of, budget);
      return of === undefined || node.degree < 1 || node.degree > maxDegree || of.n < 0n
        ? undefined
        : nthRoot(of, node.degree);
    }
    case 'power':
      return exactPower(node.base, node.exponent, budget);
    case 'call':
      return exactCall(node, budget);
    default:
      return undefined;
  }
}

function fold(
  nodes: Node[],
  start: Rational,
  combine: (a: Rational, b: Rational) => Rational,
  budget: Budget,
): Rational | undefined {
  let value = start;
  for (const node of nodes) {
    const next = exactValue(node, budget);
    if (next === undefined) return undefined;
    value = combine(value, next);
    pay(value, budget);
  }
  return value;
}

function exactPower(baseNode: Node, exponentNode: Node, budget: Budget): Rational | undefined {
  const exponent = exactValue(exponentNode, budget);
  const base = exactValue(baseNode, budget);
  if (base === undefined || exponent === undefined) return undefined;
  if (isInteger(exponent)) return power(base, exponent.n);
  if (exponent.d > maxDegree || base.n < 0n) return undefined;
  const root = nthRoot(base, Number(exponent.d));
  return root === undefined ? undefined : power(root, exponent.n);
}

function exactCall(node: Node & { kind: 'call' }, budget: Budget): Rational | undefined {
  const of = exactValue(node.of, budget);
  if (of === undefined) return undefined;
  switch (node.name) {
    case 'abs':
      return of.n < 0n ? negate(of) : of;
    case 'floor':
      return rational(floorOf(of));
    case 'ceil':
      return rational(-floorOf(negate(of)));
    case 'factorial':
      if (!isInteger(of) || of.n < 0n) return undefined;
      return rational(steppedProduct(1n, of.n, 1n, budget));
    case 'doubleFactorial':
      if (!isInteger(of) || of.n < 0n) return undefined;
      return rational(steppedProduct(of.n % 2n === 0n ? 2n : 1n, of.n, 2n, budget));
    case 'ln':
    case 'log':
    case 'lg':
      return exactLogarithm(node, of, budget);
    case 'gcd':
    case 'lcm':
    case 'max':
    case 'min': {
      const other = node.base === undefined ? undefined : exactValue(node.base, budget);
      return other === undefined ? undefined : ofTwo(node.name, of, other);
    }
    case 'binomial': {
      const k = node.base === undefined ? undefined : exactValue(node.base, budget);
      if (k === undefined || !isInteger(of) || !isInteger(k) || of.n < 0n || k.n < 0n) return undefined;
      if (k.n > of.n) return zero;
      const small = k.n * 2n > of.n ? of.n - k.n : k.n;
      return divide(
        rational(steppedProduct(of.n - small + 1n, of.n, 1n, budget)),
        rational(steppedProduct(1n, small, 1n, budget)),
      );
    }
    default:
      return undefined;
  }
}

function floorOf(a: Rational): bigint {
  const quotient = a.n / a.d;
  return a.n < 0n && a.n % a.d !== 0n ? quotient - 1n : quotient;
}

/** from · (from + step) · … · to */
function steppedProduct(from: bigint, to: bigint, step: bigint, budget: Budget): bigint {
  if ((to - from) / step > 5_000n) throw new BoundError('a factorial gets too large');
  let product = 1n;
  for (let i = from; i <= to; i += step) {
    budget.spend();
    product *= i;
    if (bitLength(product) > maxBits) throw new BoundError('a factorial gets too large');
  }
  return product;
}

/** log_b b^k = k, and ln 1 = 0; other logarithms are not seen to be rational. */
function exactLogarithm(node: Node & { kind: 'call' }, of: Rational, budget: Budget): Rational | undefined {
  if (equal(of, one)) return zero;
  if (node.name === 'ln') return undefined;
  const base = node.base === undefined ? rational(10n) : exactValue(node.base, budget);
  if (base === undefined || base.n <= 0n || of.n <= 0n || equal(base, one)) return undefined;
  const exponent = rational(BigInt(Math.round((logarithm(of) / logarithm(base)) * 60)), 60n);
  const root = exponent.d > 12n ? undefined : nthRoot(base, Number(exponent.d));
  return root !== undefined && equal(power(root, exponent.n), of) ? exponent : undefined;
}

/** To about twelve digits, at any size. */
function logarithm(a: Rational): number {
  const part = (n: bigint) => {
    const shift = Math.max(0, bitLength(n) - 60);
    return Math.log(Number(n >> BigInt(shift))) + shift * Math.LN2;
  };
  return part(a.n) - part(a.d);
}

function ofTwo(name: string, a: Rational, b: Rational): Rational | undefined {
  if (name === 'max') return compare(a, b) >= 0 ? a : b;
  if (name === 'min') return compare(a, b) <= 0 ? a : b;
  if (!isInteger(a) || !isInteger(b) || a.n <= 0n || b.n <= 0n) return undefined;
  const divisor = gcd(a.n, b.n);
  return rational(name === 'gcd' ? divisor : (a.n / divisor) * b.n);
}
