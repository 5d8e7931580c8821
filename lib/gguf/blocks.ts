// The tensor types of a GGUF file that can be read, and their blocks written out as float32.
//
//   d, m, dmin: float16 · q: small integers · a block of 32 (Q4_0, Q4_1, Q8_0) or 256 (Q4_K, Q6_K) weights
//   Q8_0  w = d q                 Q4_0  w = d (q - 8)            Q4_1  w = d q + m
//   Q4_K  w = (d s) q - dmin t, with 6-bit s and t for every 32 weights
//   Q6_K  w = (d s) (q - 32), with an 8-bit s for every 16 weights
//
// Every product but Q6_K's last is exact in float32, so that storing rounds once, where ggml's float32 arithmetic does.

interface BlockType {
  /** Its number in the file. */
  id: number;
  /** Weights of a block. */
  size: number;
  bytes: number;
  /** Writes the weights of `count` blocks. */
  expand: (bytes: Uint8Array, count: number, out: Float32Array) => void;
}

export const blockTypes = {
  F32: { id: 0, size: 1, bytes: 4, expand: expandF32 },
  F16: { id: 1, size: 1, bytes: 2, expand: expandF16 },
  Q4_0: { id: 2, size: 32, bytes: 18, expand: expandQ4_0 },
  Q4_1: { id: 3, size: 32, bytes: 20, expand: expandQ4_1 },
  Q8_0: { id: 8, size: 32, bytes: 34, expand: expandQ8_0 },
  Q4_K: { id: 12, size: 256, bytes: 144, expand: expandQ4_K },
  Q6_K: { id: 14, size: 256, bytes: 210, expand: expandQ6_K },
  BF16: { id: 30, size: 1, bytes: 2, expand: expandBF16 },
} satisfies Record<string, BlockType>;

export type BlockTypeName = keyof typeof blockTypes;

/** Types that exist and are not read, so that a refusal can name them. */
export const otherTypeNames: Record<number, string> = {
  6: 'Q5_0',
  7: 'Q5_1',
  9: 'Q8_1',
  10: 'Q2_K',
  11: 'Q3_K',
  13: 'Q5_K',
  15: 'Q8_K',
  16: 'IQ2_XXS',
  17: 'IQ2_XS',
  18: 'IQ3_XXS',
  19: 'IQ1_S',
  20: 'IQ4_NL',
  21: 'IQ3_S',
  22: 'IQ2_S',
  23: 'IQ4_XS',
  24: 'I8',
  25: 'I16',
  26: 'I32',
  27: 'I64',
  28: 'F64',
  29: 'IQ1_M',
  34: 'TQ1_0',
  35: 'TQ2_0',
  39: 'MXFP4',
};

/** Dequantises whole blocks: `bytes` and `out` hold the same number of them. */
export function dequantize(type: BlockTypeName, bytes: Uint8Array, out: Float32Array): void {
  const { bytes: blockBytes, expand } = blockTypes[type];
  expand(bytes, bytes.length / blockBytes, out);
}

/** float16 -> float32, all 65,536 of them: exact. */
const halfs = Float32Array.from({ length: 1 << 16 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 0x3ff;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
});

function half(bytes: Uint8Array, at: number): number {
  return halfs[bytes[at]! | (bytes[at + 1]! << 8)]!;
}

const int8 = (byte: number) => (byte << 24) >> 24;

// The host is little-endian, as the file is (package.json, `os`).
function expandF32(bytes: Uint8Array, _: number, out: Float32Array): void {
  new Uint8Array(out.buffer, out.byteOffset, bytes.length).set(bytes);
}

function expandF16(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let i = 0; i < count; i += 1) out[i] = half(bytes, 2 * i);
}

function expandBF16(bytes: Uint8Array, count: number, out: Float32Array): void {
  const bits = new Uint32Array(out.buffer, out.byteOffset, count);
  for (let i = 0; i < count; i += 1) bits[i] = ((bytes[2 * i]! << 16) | (bytes[2 * i + 1]! << 24)) >>> 0;
}

function expandQ8_0(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let block = 0, at = 0, w = 0; block < count; block += 1, at += 34, w += 32) {
    const d = half(bytes, at);
    for (let i = 0; i < 32; i += 1) out[w + i] = d * int8(bytes[at + 2 + i]!);
  }
}

// The low halves of 16 bytes are the first 16 weights, the high halves the other 16.
function expandQ4_0(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let block = 0, at = 0, w = 0; block < count; block += 1, at += 18, w += 32) {
    const d = half(bytes, at);
    for (let i = 0; i < 16; i += 1) {
      const q = bytes[at + 2 + i]!;
      out[w + i] = d * ((q & 15) - 8);
      out[w + 16 + i] = d * ((q >> 4) - 8);
    }
  }
}

function expandQ4_1(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let block = 0, at = 0, w = 0; block < count; block += 1, at += 20, w += 32) {
    const d = half(bytes, at);
    const m = half(bytes, at + 2);
    for (let i = 0; i < 16; i += 1) {
      const q = bytes[at + 4 + i]!;
      out[w + i] = d * (q & 15) + m;
      out[w + 16 + i] = d * (q >> 4) + m;
    }
  }
}

// 12 bytes hold eight 6-bit scales and eight 6-bit minima: the first four of each in the low bits of bytes 0 to 7, the
// others with their low halves in bytes 8 to 11 and their upper two bits on top of bytes 0 to 7.
function expandQ4_K(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let block = 0, at = 0, w = 0; block < count; block += 1, at += 144, w += 256) {
    const d = half(bytes, at);
    const dmin = half(bytes, at + 2);
    for (let group = 0; group < 8; group += 1) {
      const j = at + 4 + (group & 3);
      const isLow = group < 4;
      const scale = isLow ? bytes[j]! & 63 : (bytes[j + 8]! & 15) | ((bytes[j]! >> 2) & 48);
      const minimum = isLow ? bytes[j + 4]! & 63 : (bytes[j + 8]! >> 4) | ((bytes[j + 4]! >> 2) & 48);
      const step = d * scale;
      const offset = dmin * minimum;
      const q = at + 16 + 32 * (group >> 1);
      const shift = group & 1 ? 4 : 0;
      for (let i = 0; i < 32; i += 1) out[w + 32 * group + i] = step * ((bytes[q + i]! >> shift) & 15) - offset;
    }
  }
}

// 128 bytes of low halves, 64 bytes of upper pairs of bits, 16 scales, d. A half block of 128 weights takes 64 bytes of
// the first and 32 of the second: four runs of 32 weights.
function expandQ6_K(bytes: Uint8Array, count: number, out: Float32Array): void {
  for (let block = 0, at = 0, w = 0; block < count; block += 1, at += 210, w += 256) {
    const d = half(bytes, at + 208);
    for (let run = 0; run < 8; run += 1) {
      const low = at + 64 * (run >> 2) + 32 * (run & 1);
      const high = at + 128 + 32 * (run >> 2);
      const lowShift = run & 2 ? 4 : 0;
      const highShift = 2 * (run & 3);
      for (let i = 0; i < 32; i += 1) {
        const q = ((bytes[low + i]! >> lowShift) & 15) | (((bytes[high + i]! >> highShift) & 3) << 4);
        const scale = d * int8(bytes[at + 192 + 2 * run + (i >> 4)]!);
        out[w + 32 * run + i] = scale * (q - 32);
      }
    }
  }
}
