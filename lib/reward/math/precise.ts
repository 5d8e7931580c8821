// Real values to about ninety digits, for what doubles cannot tell apart: e^{π√163} is no integer, and √(10^40 + 1) is
// not 10^20. Numbers are fixed-point, x / 2^320, and carry a bound on their error.

import { type Budget, bitLength, type Rational } from '../rational.js';
import { exactValue } from './exact.js';
import type { Node } from './node.js';

const fractionBits = 320;
const shift = BigInt(fractionBits);
const unit = 1n << shift;
/** Values beyond 2^1000 are left to the doubles. */
const maxValueBits = fractionBits + 1_000;
/** Equality asks for errors below 2^-200. */
const maxError = 1n << 120n;

/** value ± error, in units of 2^-320. */
export interface Precise {
  value: bigint;
  error: bigint;
}

/** The value at a point, or undefined where this file does not know how. */
export function preciseValue(node: Node, numberOf: (name: string) => number, budget: Budget): Precise | undefined {
  const value = preciseAt(node, numberOf, budget);
  if (value === undefined || bitLength(value.value) > maxValueBits) return undefined;
  return value;
}

/** Undefined where the errors are too large to tell. */
export function samePrecise(a: Precise, b: Precise): boolean | undefined {
  const error = a.error + b.error;
  if (error > maxError) return undefined;
  return absolute(a.value - b.value) <= error;
}

function preciseAt(node: Node, numberOf: (name: string) => number, budget: Budget): Precise | undefined {
  budget.spend(4);
  const at = (inner: Node) => preciseValue(inner, numberOf, budget);
  switch (node.kind) {
    case 'number':
      return fromRational(node.value);
    case 'variable':
      return fromDouble(numberOf(node.name));
    case 'constant':
      return node.name === 'pi' ? pi() : node.name === 'e' ? exponential(exactly(unit)) : undefined;
    case 'sum':
      return combine(node.terms, at, (a, b) => ({ value: a.value + b.value, error: a.error + b.error }));
    case 'product':
      return combine(node.factors, at, times);
    case 'negative': {
      const of = at(node.of);
      return of && { value: -of.value, error: of.error };
    }
    case 'degrees':
      return at(node.of);
    case 'quotient': {
      const [over, under] = [at(node.over), at(node.under)];
      return over && under && quotient(over, under);
    }
    case 'root': {
      const of = at(node.of);
      return of && root(of, node.degree);
    }
    case 'power':
      return power(node, at, budget);
    case 'call':
      return call(node, at, budget);
    default:
      return undefined;
  }
}

const absolute = (a: bigint) => (a < 0n ? -a : a);
const exactly = (value: bigint): Precise => ({ value, error: 0n });

function fromRational({ n, d }: Rational): Precise {
  return { value: (n << shift) / d, error: d === 1n ? 0n : 1n };
}

/** Doubles of the size of our points are whole multiples of 2^-60. */
function fromDouble(value: number): Precise {
  return exactly(BigInt(Math.round(value * 2 ** 60)) << (shift - 60n));
}

function combine(
  nodes: Node[],
  at: (node: Node) => Precise | undefined,
  operation: (a: Precise, b: Precise) => Precise,
): Precise | undefined {
  let result: Precise | undefined;
  for (const node of nodes) {
    const value = at(node);
    if (value === undefined) return undefined;
    result = result === undefined ? value : operation(result, value);
    if (bitLength(result.value) > maxValueBits) return undefined;
  }
  return result;
}

function times(a: Precise, b: Precise): Precise {
  const error = (absolute(a.value) * b.error + absolute(b.value) * a.error + a.error * b.error) >> shift;
  return { value: (a.value * b.value) >> shift, error: error + 2n };
}

function quotient(a: Precise, b: Precise): Precise | undefined {
  const size = absolute(b.value) - b.error;
  if (size <= 0n) return undefined;
  const value = (a.value << shift) / b.value;
  return { value, error: ((a.error << shift) + absolute(value) * b.error) / size + 2n };
}

/** Of what is above 2^-60, where the derivative keeps the error small; odd roots of negative numbers are real. */
function root(a: Precise, degree: number): Precise | undefined {
  if (a.value < 0n) {
    const positive = degree % 2 === 1 ? root({ value: -a.value, error: a.error }, degree) : undefined;
    return positive && { value: -positive.value, error: positive.error };
  }
  if (degree < 1 || degree > 12 || a.value >> (shift - 60n) === 0n) return undefined;
  const k = BigInt(degree);
  const value = floorRoot(a.value << (shift * (k - 1n)), k);
  return { value, error: (a.error * value) / (a.value * k) + 2n };
}

function floorRoot(a: bigint, k: bigint): bigint {
  let x = 1n << BigInt(Math.ceil(bitLength(a) / Number(k)));
  for (;;) {
    const next = ((k - 1n) * x + a / x ** (k - 1n)) / k;
    if (next >= x) return x;
    x = next;
  }
}

function power(
  node: Node & { kind: 'power' },
  at: (node: Node) => Precise | undefined,
  budget: Budget,
): Precise | undefined {
  const base = at(node.base);
  const exponent = exactValue(node.exponent, budget);
  if (base === undefined) return undefined;
  if (exponent === undefined || absolute(exponent.n) > 64n || exponent.d > 12n) {
    budget.spend(80);
    const [logarithm, of] = [naturalLogarithm(base), at(node.exponent)];
    return logarithm && of && exponential(times(logarithm, of));
  }
  const part = exponent.d === 1n ? base : root(base, Number(exponent.d));
  if (part === undefined) return undefined;
  budget.spend(Number(absolute(exponent.n)) >> 2);
  let result = exactly(unit);
  for (let i = absolute(exponent.n); i > 0n; i -= 1n) {
    result = times(result, part);
    if (bitLength(result.value) > maxValueBits) return undefined;
  }
  return exponent.n < 0n ? quotient(exactly(unit), result) : result;
}

function call(
  node: Node & { kind: 'call' },
  at: (node: Node) => Precise | undefined,
  budget: Budget,
): Precise | undefined {
  const of = at(node.of);
  if (of === undefined) return undefined;
  budget.spend(40);
  switch (node.name) {
    case 'abs':
      return { value: absolute(of.value), error: of.error };
    case 'exp':
      return exponential(of);
    case 'ln':
      return naturalLogarithm(of);
    case 'log':
    case 'lg': {
      const base = node.base === undefined ? exactly(10n * unit) : at(node.base);
      const [over, under] = [naturalLogarithm(of), base && naturalLogarithm(base)];
      return over && under && quotient(over, under);
    }
    case 'sin':
      return sine(of);
    case 'cos':
      return cosine(of);
    case 'tan':
      return quotient(sine(of), cosine(of));
    default:
      return undefined;
  }
}

/** e^x by halving x sixteen times; each squaring doubles the relative error. */
function exponential(x: Precise): Precise | undefined {
  if (absolute(x.value) >> shift > 600n) return undefined;
  const halvings = 16n;
  const part = x.value >> halvings;
  let term = unit;
  let sum = unit;
  for (let i = 1n; term !== 0n; i += 1n) {
    term = ((term * part) >> shift) / i;
    sum += term;
    if (term === -1n) break;
  }
  // The series is off by less than 2^9 units, and halving loses one more.
  let result: Precise = { value: sum, error: (x.error >> halvings) + 600n };
  for (let i = 0; i < Number(halvings); i += 1) result = times(result, result);
  return result;
}

/** 2 artanh((y − 1) / (y + 1)) after taking powers of 2 out. */
function naturalLogarithm(x: Precise): Precise | undefined {
  if (x.value <= x.error || x.value <= 0n) return undefined;
  const twos = bitLength(x.value) - fractionBits;
  const reduced = twos >= 0 ? x.value >> BigInt(twos) : x.value << BigInt(-twos);
  const tail = twos === 0 ? 0n : BigInt(twos) * ln2();
  return {
    value: twiceArtanh(reduced) + tail,
    error: (x.error << shift) / x.value + 600n + BigInt(Math.abs(twos)) * 600n,
  };
}

function twiceArtanh(y: bigint): bigint {
  const z = ((y - unit) << shift) / (y + unit);
  const square = (z * z) >> shift;
  let term = z;
  let sum = 0n;
  for (let i = 1n; absolute(term) > 1n; i += 2n) {
    sum += term / i;
    term = (term * square) >> shift;
  }
  return 2n * sum;
}

let cachedLn2: bigint | undefined;
function ln2(): bigint {
  cachedLn2 ??= twiceArtanh(2n * unit);
  return cachedLn2;
}

let cachedPi: bigint | undefined;
/** Machin: π = 16 arctan(1/5) − 4 arctan(1/239). */
function pi(): Precise {
  cachedPi ??= 16n * inverseArctan(5n) - 4n * inverseArctan(239n);
  return { value: cachedPi, error: 1n << 13n };
}

function inverseArctan(n: bigint): bigint {
  let term = unit / n;
  let sum = 0n;
  for (let i = 1n; term !== 0n; i += 2n) {
    sum += i % 4n === 1n ? term / i : -(term / i);
    term /= n * n;
  }
  return sum;
}

function sine(x: Precise): Precise {
  return cosine({ value: x.value - pi().value / 2n, error: x.error + pi().error });
}

/** Taylor's series after taking whole turns away. */
function cosine(x: Precise): Precise {
  const turn = 2n * pi().value;
  const turns = x.value / turn;
  const part = x.value - turns * turn;
  const square = (part * part) >> shift;
  let term = unit;
  let sum = 0n;
  for (let i = 1n; absolute(term) > 1n; i += 2n) {
    sum += term;
    term = -((term * square) >> shift) / (i * (i + 1n));
  }
  return { value: sum, error: x.error + 2n * (absolute(turns) + 1n) * pi().error + 100_000n };
}
