// What kernels over rows share: 16-byte vectors of float32 and bfloat16, and a block's reductions. Include it after a
// header that defines the primitives of namespace archer::gpu (gpu_primitives.cuh; tests/gpu_emulation.h).
#pragma once
#include "kernels/row_math.h"

namespace archer::gpu {

template <typename In>
struct VectorOf {
  static constexpr int kElements = 16 / static_cast<int>(sizeof(In));
};

ARCHER_DEVICE float widen(float value) { return value; }
ARCHER_DEVICE float widen(Bf16 value) { return bits_to_float(static_cast<uint32_t>(value.bits) << 16); }

ARCHER_DEVICE void unpack(const Word4& words, float (&values)[4]) {
  values[0] = bits_to_float(words.x);
  values[1] = bits_to_float(words.y);
  values[2] = bits_to_float(words.z);
  values[3] = bits_to_float(words.w);
}
ARCHER_DEVICE void unpack(const Word4& words, float (&values)[8]) {
  const uint32_t pairs[4] = {words.x, words.y, words.z, words.w};
  ARCHER_UNROLL
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = bits_to_float(pairs[i] << 16);
    values[2 * i + 1] = bits_to_float(pairs[i] & 0xFFFF0000u);
  }
}

ARCHER_DEVICE void set_minus_infinity(float& value) { value = bits_to_float(0xFF800000u); }
ARCHER_DEVICE void set_minus_infinity(Bf16& value) { value.bits = 0xFF80u; }

ARCHER_DEVICE Word4 pack(const float (&values)[8]) {
  return {pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]), pack_bf16(values[4], values[5]),
          pack_bf16(values[6], values[7])};
}
ARCHER_DEVICE float round_bf16(float value) { return widen(to_bf16(value)); }

// Sums of a block's threads, in lane order within warps and warp order across: valid in every lane of warp 0.
// Between two calls all threads must pass a barrier.
template <int kThreads>
ARCHER_DEVICE RowSums reduce_block(RowSums sums, float scale, Float4 (&warps)[kThreads / 32]) {
  constexpr int kWarps = kThreads / 32;
  const int thread = thread_rank();
  for (int mask = 16; mask > 0; mask /= 2) {
    const RowSums other{shuffle_xor(sums.max, mask), shuffle_xor(sums.sum, mask), shuffle_xor(sums.weighted, mask)};
    sums = merge(sums, other, scale);
  }
  if (thread % 32 == 0) warps[thread / 32] = {sums.max, sums.sum, sums.weighted, 0.0f};
  block_barrier();
  if (thread < 32) {
    sums = empty_sums();
    if (thread < kWarps) sums = {warps[thread].x, warps[thread].y, warps[thread].z};
    for (int mask = kWarps / 2; mask > 0; mask /= 2) {
      const RowSums other{shuffle_xor(sums.max, mask), shuffle_xor(sums.sum, mask), shuffle_xor(sums.weighted, mask)};
      sums = merge(sums, other, scale);
    }
    // merge(a, b) and merge(b, a) may differ in the last bit: all go on with lane 0's.
    sums = {shuffle_from_0(sums.max), shuffle_from_0(sums.sum), shuffle_from_0(sums.weighted)};
  }
  return sums;
}

}  // namespace archer::gpu
