// Philox4x32-10 (Salmon et al., SC 2011), the same numbers as native/core/philox.h.

/** High and low 32 bits of a 32 × 32-bit product. */
function multiply(a: number, b: number): { high: number; low: number } {
  const low = (a & 0xffff) * b;
  const high = (a >>> 16) * b + Math.floor(low / 0x10000);
  return { high: Math.floor(high / 0x10000) >>> 0, low: Math.imul(a, b) >>> 0 };
}

/** Four uint32 words for a counter of four and a key of two. */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round += 1) {
    const p0 = multiply(0xd2511f53, c0);
    const p1 = multiply(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(p1.high ^ c1 ^ k0) >>> 0, p1.low, (p0.high ^ c3 ^ k1) >>> 0, p0.low];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return [c0, c1, c2, c3];
}
