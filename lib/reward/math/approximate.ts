// The value of an expression at a point: a complex double with a bound on its error.

import { type Budget, isInteger, toNumber } from '../rational.js';
import { exactValue } from './exact.js';
import type { Node } from './node.js';

/** re + im·i, off by at most about `error`. NaN where the expression has no value. */
export interface Approximate {
  re: number;
  im: number;
  error: number;
}

const epsilon = 2 ** -52;
const undefinedValue: Approximate = { re: Number.NaN, im: 0, error: 0 };

export interface Point {
  /** The number of a variable. */
  numberOf: (name: string) => number;
  /** Without it an expression with a part that is not real has no value. */
  complex: boolean;
}

/** Where there are no variables. */
export const nowhere: Point = { numberOf: () => Number.NaN, complex: false };

/** The value at a point. */
export function approximateValue(node: Node, point: Point, budget: Budget): Approximate {
  const value = valueAt(node, point, budget);
  return value.im !== 0 && !point.complex ? undefinedValue : value;
}

function valueAt(node: Node, point: Point, budget: Budget): Approximate {
  budget.spend();
  const at = (inner: Node) => approximateValue(inner, point, budget);
  switch (node.kind) {
    case 'number':
      return real(toNumber(node.value));
    case 'variable':
      return real(point.numberOf(node.name));
    case 'constant':
      if (node.name === 'i') return { re: 0, im: 1, error: 0 };
      return node.name === 'infinity' ? undefinedValue : real(node.name === 'pi' ? Math.PI : Math.E);
    case 'sum':
      return node.terms.map(at).reduce(plus);
    case 'product':
      return node.factors.map(at).reduce(by);
    case 'quotient':
      return over(at(node.over), at(node.under));
    case 'negative': {
      const of = at(node.of);
      return { re: -of.re, im: -of.im, error: of.error };
    }
    case 'degrees':
      return at(node.of);
    case 'root':
      return rootOf(at(node.of), node.degree);
    case 'power':
      return powerOf(node, at, point.complex, budget);
    case 'call':
      return call(node, at);
    default:
      return undefinedValue;
  }
}

const real = (re: number): Approximate => ({ re, im: 0, error: Math.abs(re) * epsilon });
const size = (a: Approximate) => Math.hypot(a.re, a.im);
const withError = (re: number, im: number, error: number): Approximate => ({
  re,
  im,
  error: error + 2 * epsilon * Math.hypot(re, im),
});

const plus = (a: Approximate, b: Approximate) => withError(a.re + b.re, a.im + b.im, a.error + b.error);
const by = (a: Approximate, b: Approximate) =>
  withError(
    a.re * b.re - a.im * b.im,
    a.re * b.im + a.im * b.re,
    size(a) * b.error + size(b) * a.error + a.error * b.error,
  );

function over(a: Approximate, b: Approximate): Approximate {
  const square = b.re * b.re + b.im * b.im;
  if (Math.sqrt(square) <= b.error || square === 0) return undefinedValue;
  const re = (a.re * b.re + a.im * b.im) / square;
  const im = (a.im * b.re - a.re * b.im) / square;
  return withError(re, im, (a.error + Math.hypot(re, im) * b.error) / Math.sqrt(square));
}

/** exp(z · log a), principal branch. */
function complexPower(a: Approximate, z: Approximate): Approximate {
  const modulus = size(a);
  if (modulus === 0) return z.re > 0 && z.im === 0 ? real(0) : z.re === 0 && z.im === 0 ? real(1) : undefinedValue;
  if (a.im === 0 && z.im === 0 && Number.isInteger(z.re)) {
    const result = a.re ** z.re;
    return { re: result, im: 0, error: Math.abs(result) * (Math.abs(z.re) * (a.error / modulus) + 4 * epsilon) };
  }
  const logarithm = { re: Math.log(modulus), im: Math.atan2(a.im, a.re) };
  const re = z.re * logarithm.re - z.im * logarithm.im;
  const im = z.re * logarithm.im + z.im * logarithm.re;
  const result = Math.exp(re);
  const relative =
    (a.error / modulus) * size(z) +
    z.error * Math.hypot(logarithm.re, logarithm.im) +
    4 * epsilon * (1 + Math.abs(re) + Math.abs(im));
  return { re: result * Math.cos(im), im: result * Math.sin(im), error: result * relative };
}

function rootOf(a: Approximate, degree: number): Approximate {
  if (degree < 1) return undefinedValue;
  if (a.im === 0 && a.re >= 0) {
    const root = degree === 2 ? Math.sqrt(a.re) : a.re ** (1 / degree);
    return {
      re: root,
      im: 0,
      error: root === 0 ? Math.sqrt(a.error) : (root * (a.error / a.re)) / degree + 4 * epsilon * root,
    };
  }
  // Odd roots of negative numbers are real in school mathematics.
  if (a.im === 0 && degree % 2 === 1) {
    const root = rootOf({ re: -a.re, im: 0, error: a.error }, degree);
    return { re: -root.re, im: 0, error: root.error };
  }
  if (a.im === 0 && degree === 2) return { re: 0, im: Math.sqrt(-a.re), error: a.error / Math.sqrt(-a.re) + epsilon };
  return complexPower(a, real(1 / degree));
}

function powerOf(
  node: Node & { kind: 'power' },
  at: (node: Node) => Approximate,
  complex: boolean,
  budget: Budget,
): Approximate {
  const base = at(node.base);
  const exponent = exactValue(node.exponent, budget);
  if (exponent === undefined || exponent.d > 64n || exponent.n < -64n || exponent.n > 64n) {
    return complexPower(base, at(node.exponent));
  }
  // Over the reals x^{1/3} is the odd root, which negative numbers have too.
  const isRoot = exponent.d === 2n || (exponent.d % 2n === 1n && !complex);
  if (!isInteger(exponent) && !isRoot) return complexPower(base, at(node.exponent));
  const root = isInteger(exponent) ? base : rootOf(base, Number(exponent.d));
  let result = real(1);
  for (let i = Math.abs(Number(exponent.n)); i > 0; i -= 1) result = by(result, root);
  return exponent.n < 0n ? over(real(1), result) : result;
}

const realFunctions: Record<string, { f: (x: number) => number; slope: (x: number) => number }> = {
  sin: { f: Math.sin, slope: (x) => Math.abs(Math.cos(x)) },
  cos: { f: Math.cos, slope: (x) => Math.abs(Math.sin(x)) },
  tan: { f: Math.tan, slope: (x) => 1 + Math.tan(x) ** 2 },
  cot: { f: (x) => 1 / Math.tan(x), slope: (x) => 1 + Math.tan(x) ** -2 },
  sec: { f: (x) => 1 / Math.cos(x), slope: (x) => Math.abs(Math.tan(x) / Math.cos(x)) },
  csc: { f: (x) => 1 / Math.sin(x), slope: (x) => Math.abs(1 / (Math.tan(x) * Math.sin(x))) },
  arcsin: { f: Math.asin, slope: (x) => 1 / Math.sqrt(1 - x * x) },
  arccos: { f: Math.acos, slope: (x) => 1 / Math.sqrt(1 - x * x) },
  arctan: { f: Math.atan, slope: () => 1 },
  arccot: { f: (x) => Math.PI / 2 - Math.atan(x), slope: () => 1 },
  sinh: { f: Math.sinh, slope: Math.cosh },
  cosh: { f: Math.cosh, slope: (x) => Math.abs(Math.sinh(x)) },
  tanh: { f: Math.tanh, slope: () => 1 },
  arcsinh: { f: Math.asinh, slope: () => 1 },
  arccosh: { f: Math.acosh, slope: (x) => 1 / Math.sqrt(x * x - 1) },
  arctanh: { f: Math.atanh, slope: (x) => 1 / Math.abs(1 - x * x) },
  abs: { f: Math.abs, slope: () => 1 },
  floor: { f: Math.floor, slope: () => 0 },
  ceil: { f: Math.ceil, slope: () => 0 },
  ln: { f: Math.log, slope: (x) => 1 / Math.abs(x) },
  exp: { f: Math.exp, slope: Math.exp },
};

function call(node: Node & { kind: 'call' }, at: (node: Node) => Approximate): Approximate {
  const of = at(node.of);
  if (node.name === 'abs') return { re: size(of), im: 0, error: of.error + epsilon * size(of) };
  if (of.im !== 0 || Number.isNaN(of.re)) return undefinedValue;
  if (node.name === 'log' || node.name === 'lg') {
    const base = node.base === undefined ? real(10) : at(node.base);
    return over(apply('ln', of), apply('ln', base));
  }
  if (node.name === 'factorial') return gammaOf(plus(of, real(1)));
  if (node.name === 'binomial') {
    const k = node.base === undefined ? undefinedValue : at(node.base);
    const rest = plus(plus(of, { re: -k.re, im: -k.im, error: k.error }), real(1));
    return over(gammaOf(plus(of, real(1))), by(gammaOf(plus(k, real(1))), gammaOf(rest)));
  }
  if (node.name === 'max' || node.name === 'min') {
    const other = node.base === undefined ? undefinedValue : at(node.base);
    return (node.name === 'max') === of.re > other.re ? of : other;
  }
  // Next to a step the error decides what the value is.
  const isStep = node.name === 'floor' || node.name === 'ceil';
  if (isStep && Math.abs(of.re - Math.round(of.re)) <= of.error + 1e-12) return undefinedValue;
  return apply(node.name, of);
}

function apply(name: string, of: Approximate): Approximate {
  const known = realFunctions[name];
  if (known === undefined || of.im !== 0) return undefinedValue;
  const value = known.f(of.re);
  const slope = known.slope(of.re);
  return {
    re: value,
    im: 0,
    error: (Number.isFinite(slope) ? slope : 1) * of.error + 4 * epsilon * (1 + Math.abs(value)),
  };
}

const lanczos = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

/** Γ by Lanczos' series (relative error about 1e-14), so that n! and binomials of variables can be compared. */
function gammaOf(of: Approximate): Approximate {
  if (of.im !== 0 || !Number.isFinite(of.re) || Math.abs(of.re) > 100) return undefinedValue;
  const value = gamma(of.re);
  return { re: value, im: 0, error: Math.abs(value) * (1e-12 + 10 * of.error) };
}

function gamma(x: number): number {
  if (x < 0.5) return Math.PI / (Math.sin(Math.PI * x) * gamma(1 - x));
  const t = x + 6.5;
  const sum = lanczos.reduce((total, coefficient, i) => (i === 0 ? coefficient : total + coefficient / (x - 1 + i)), 0);
  return Math.sqrt(2 * Math.PI) * t ** (x - 0.5) * Math.exp(-t) * sum;
}
