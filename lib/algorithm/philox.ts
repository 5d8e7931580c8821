// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same function as native/core/philox.h. What
// is drawn here (orders, bootstrap samples) depends on its key alone, never on what was drawn before.

export type PhiloxBlock = [number, number, number, number];

/** High and low 32 bits of the product of two unsigned 32-bit integers; every step is exact below 2^53. */
function multiply(a: number, b: number): [number, number] {
  const low = (a & 0xffff) * b;
  const high = (a >>> 16) * b + Math.floor(low / 2 ** 16);
  return [Math.floor(high / 2 ** 16) >>> 0, Math.imul(a, b) >>> 0];
}

/** Ten rounds; all words are unsigned 32-bit integers. */
export function philox4x32(counter: Readonly<PhiloxBlock>, key: readonly [number, number]): PhiloxBlock {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; ++round) {
    const [high0, low0] = multiply(0xd2511f53, c0);
    const [high1, low1] = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/** What the numbers are for. Each has a key of its own, away from the tokens' (whose second key word is below 2^21). */
export const randomStreams = {
  miniBatches: 0x4d420000,
  bootstrap: 0x42530000,
} as const;

export interface RandomKey {
  /** 0 … 2^53 − 1 */
  seed: number;
  stream: keyof typeof randomStreams;
  /** Unsigned 32-bit integers that name this draw, such as the step and the inner epoch. */
  a?: number;
  b?: number;
}

/** The number of this key at `index` (0 … 2^32 − 1): uniform in [0, 1) with 53 bits. */
export function keyedUniform({ seed, stream, a = 0, b = 0 }: RandomKey, index: number): number {
  const key1 = (Math.floor(seed / 2 ** 32) ^ randomStreams[stream]) >>> 0;
  const [high, low] = philox4x32([index, 0, b, a], [seed % 2 ** 32, key1]);
  return (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
}

/** 0 … count − 1 in the order of this key (Fisher and Yates). */
export function keyedOrder(count: number, key: RandomKey): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; --last) {
    const other = Math.floor(keyedUniform(key, last) * (last + 1));
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
