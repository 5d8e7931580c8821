// Exact rationals over BigInt, with two bounds: no number has more than maxBits bits, and every operation is paid for
// from a budget. Past either the answer is a BoundError, so that 99999999^{99999999} costs nothing.

/** The answer is larger, deeper or longer than a verifier reads: an error, never a verdict. */
export class BoundError extends Error {}

/** Counted work of one comparison; about a microsecond a unit. */
export class Budget {
  #left: number;

  constructor(units: number) {
    this.#left = units;
  }

  spend(units = 1): void {
    this.#left -= units;
    if (this.#left < 0) throw new BoundError('the comparison takes too many steps');
  }
}

/** n / d in lowest terms, d > 0. */
export interface Rational {
  n: bigint;
  d: bigint;
}

export const maxBits = 65_536;
/** Of a fraction, which has to be reduced: Euclid's algorithm is quadratic in the length, and slow in BigInt. */
const maxFractionBits = 8_192;

export function rational(n: bigint, d = 1n): Rational {
  if (d === 0n) throw new RangeError('division by zero');
  if (bitLength(n) > maxBits || bitLength(d) > maxBits) throw new BoundError('the numbers get too large');
  if (d === 1n) return { n, d };
  if (bitLength(n) > maxFractionBits || bitLength(d) > maxFractionBits)
    throw new BoundError('the numbers get too large');
  const sign = d < 0n ? -1n : 1n;
  const divisor = gcd(n < 0n ? -n : n, d * sign) * sign;
  return { n: n / divisor, d: d / divisor };
}

export const zero: Rational = { n: 0n, d: 1n };
export const one: Rational = { n: 1n, d: 1n };

export const add = (a: Rational, b: Rational) => rational(a.n * b.d + b.n * a.d, a.d * b.d);
export const subtract = (a: Rational, b: Rational) => rational(a.n * b.d - b.n * a.d, a.d * b.d);
export const multiply = (a: Rational, b: Rational) => rational(a.n * b.n, a.d * b.d);
export const divide = (a: Rational, b: Rational) => rational(a.n * b.d, a.d * b.n);
export const negate = (a: Rational): Rational => ({ n: -a.n, d: a.d });
export const equal = (a: Rational, b: Rational) => a.n === b.n && a.d === b.d;
export const isInteger = (a: Rational) => a.d === 1n;

export function compare(a: Rational, b: Rational): number {
  const left = a.n * b.d;
  const right = b.n * a.d;
  return left < right ? -1 : left > right ? 1 : 0;
}

export function power(base: Rational, exponent: bigint): Rational {
  const size = exponent < 0n ? -exponent : exponent;
  const bits = Math.max(bitLength(base.n), bitLength(base.d));
  if (bits > 1 && size * BigInt(bits - 1) > BigInt(maxBits)) throw new BoundError('a power gets too large');
  if (bits <= 1) {
    // 0, 1 and −1 (all others have more bits) to any power, however large.
    if (base.n === 0n) {
      if (exponent < 0n) throw new RangeError('division by zero');
      return exponent === 0n ? one : zero;
    }
    return base.n === -1n && size % 2n === 1n ? base : one;
  }
  const n = base.n ** size;
  const d = base.d ** size;
  return exponent < 0n ? rational(d, n) : rational(n, d);
}

/** The exact root, if there is one: nthRoot(8/27, 3) = 2/3. */
export function nthRoot(a: Rational, degree: number): Rational | undefined {
  if (a.n < 0n) {
    if (degree % 2 === 0) return undefined;
    const root = nthRoot(negate(a), degree);
    return root === undefined ? undefined : negate(root);
  }
  const n = integerRoot(a.n, degree);
  const d = integerRoot(a.d, degree);
  return n === undefined || d === undefined ? undefined : { n, d };
}

/** Nearest double; exact integers beyond doubles become ±Infinity. */
export function toNumber(a: Rational): number {
  const bits = Math.max(bitLength(a.n), bitLength(a.d));
  if (bits < 1000) return Number(a.n) / Number(a.d);
  const shift = BigInt(bitLength(a.d) - bitLength(a.n) + 64);
  const scaled = shift >= 0n ? (a.n << shift) / a.d : a.n / (a.d << -shift);
  return Number(scaled) * 2 ** -Number(shift);
}

/** `12`, `-3.50`, `.5`, `1.5e-3`; undefined for anything else. Exact: 0.1 is 1/10. */
export function parseDecimal(text: string): Rational | undefined {
  const match = /^([+-]?)(\d*)(?:\.(\d*))?(?:[eE]([+-]?\d{1,6}))?$/.exec(text);
  if (match === null) return undefined;
  const [, sign, whole = '', fraction = '', exponent = '0'] = match;
  const digits = whole + fraction;
  if (digits === '') return undefined;
  if (digits.length > 4000) throw new BoundError('a number has too many digits');
  const value = rational(BigInt(digits) * (sign === '-' ? -1n : 1n), 10n ** BigInt(fraction.length));
  return exponent === '0' ? value : multiply(value, power({ n: 10n, d: 1n }, BigInt(exponent)));
}

/**
 * Equality where one side was rounded: both to six decimal places, half away from zero; below 0.001 in size to six
 * significant digits, so that two different small numbers do not both become 0.
 */
export function equalToSixPlaces(a: Rational, b: Rational): boolean {
  if (equal(a, b)) return true;
  if (a.n === 0n || b.n === 0n || a.n < 0n !== b.n < 0n)
    return roundAt(a, 6) === roundAt(b, 6) && !isSmall(a) && !isSmall(b);
  const places = isSmall(a) || isSmall(b) ? Math.max(placesOf(a), placesOf(b)) : 6;
  return roundAt(a, places) === roundAt(b, places);
}

const isSmall = (a: Rational) => a.n !== 0n && (a.n < 0n ? -a.n : a.n) * 1000n < a.d;

/** Decimal places that leave six significant digits. */
function placesOf(a: Rational): number {
  const size = { n: a.n < 0n ? -a.n : a.n, d: a.d };
  let exponent = Math.floor((bitLength(size.n) - bitLength(size.d)) * Math.LOG10E * Math.LN2) - 1;
  while (compare(size, tenTo(exponent + 1)) >= 0) exponent += 1;
  return 5 - exponent;
}

const tenTo = (exponent: number): Rational =>
  exponent >= 0 ? { n: 10n ** BigInt(exponent), d: 1n } : { n: 1n, d: 10n ** BigInt(-exponent) };

function roundAt(a: Rational, places: number): bigint {
  const scaled = multiply(a, tenTo(places));
  const size = scaled.n < 0n ? -scaled.n : scaled.n;
  const rounded = (2n * size + scaled.d) / (2n * scaled.d);
  return scaled.n < 0n ? -rounded : rounded;
}

function integerRoot(a: bigint, degree: number): bigint | undefined {
  if (a < 2n) return a;
  const k = BigInt(degree);
  let x = 1n << BigInt(Math.ceil(bitLength(a) / degree));
  for (;;) {
    const y = ((k - 1n) * x + a / x ** (k - 1n)) / k;
    if (y >= x) break;
    x = y;
  }
  return x ** k === a ? x : undefined;
}

export function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b];
  return a === 0n ? 1n : a;
}

/** Bits of |a|; cheap, exact to four bits upwards. */
export function bitLength(a: bigint): number {
  if (a === 0n) return 0;
  const hex = (a < 0n ? -a : a).toString(16);
  return (hex.length - 1) * 4 + (32 - Math.clz32(Number.parseInt(hex[0] as string, 16)));
}
