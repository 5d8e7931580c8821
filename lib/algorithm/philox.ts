// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same function as native/core/philox.h. What
// is drawn here (orders, bootstrap samples) depends on its key alone, never on what was drawn before.

// Jest looks every global up through a proxy, which makes Math thirty times slower than a local.
const { floor, imul } = Math;

export type PhiloxBlock = [number, number, number, number];

/** The high 32 bits of the product of two unsigned 32-bit integers; every step is exact below 2^53. */
function highProduct(a: number, b: number): number {
  const low = (a & 0xffff) * b;
  return floor(((a >>> 16) * b + floor(low / 2 ** 16)) / 2 ** 16);
}

/** Ten rounds; all words are unsigned 32-bit integers. */
export function philox4x32(counter: Readonly<PhiloxBlock>, key: readonly [number, number]): PhiloxBlock {
  let c0 = counter[0];
  let c1 = counter[1];
  let c2 = counter[2];
  let c3 = counter[3];
  let k0 = key[0];
  let k1 = key[1];
  for (let round = 0; round < 10; ++round) {
    const next0 = (highProduct(0xcd9e8d57, c2) ^ c1 ^ k0) >>> 0;
    const next2 = (highProduct(0xd2511f53, c0) ^ c3 ^ k1) >>> 0;
    c1 = imul(0xcd9e8d57, c2) >>> 0;
    c3 = imul(0xd2511f53, c0) >>> 0;
    c0 = next0;
    c2 = next2;
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

function keyWords({ seed, stream }: RandomKey): [number, number] {
  return [seed % 2 ** 32, (floor(seed / 2 ** 32) ^ randomStreams[stream]) >>> 0];
}

/** The number of this key at `index` (0 … 2^32 − 1): uniform in [0, 1) with 53 bits. */
export function keyedUniform(key: RandomKey, index: number): number {
  const [high, low] = philox4x32([index, 0, key.b ?? 0, key.a ?? 0], keyWords(key));
  return (high * 2 ** 21 + (low >>> 11)) * 2 ** -53;
}

/** Fills `into` with draws of 0 … below − 1, with replacement; four to a block, each from 32 bits. */
export function keyedIndices(into: Uint32Array, below: number, key: RandomKey): void {
  const words = keyWords(key);
  for (let index = 0; index < into.length; index += 4) {
    const block = philox4x32([index, 1, key.b ?? 0, key.a ?? 0], words);
    for (let lane = 0; lane < 4 && index + lane < into.length; ++lane) {
      into[index + lane] = floor((block[lane]! / 2 ** 32) * below);
    }
  }
}

/** 0 … count − 1 in the order of this key (Fisher and Yates). */
export function keyedOrder(count: number, key: RandomKey): number[] {
  const order = Array.from({ length: count }, (_, index) => index);
  for (let last = count - 1; last > 0; --last) {
    const other = floor(keyedUniform(key, last) * (last + 1));
    [order[last], order[other]] = [order[other]!, order[last]!];
  }
  return order;
}
