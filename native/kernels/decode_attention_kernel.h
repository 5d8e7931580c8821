// Attention of one decode step over paged keys and values, written once for nvcc and for the emulation: include it
// after a header that defines the primitives of namespace archer::gpu.
//
// attend_split: one block of four warps per row, kv head and split of four pages; all G query heads of the group work
// on the same keys, so keys and values are read once. Of each page a warp takes 16 positions, straight from global
// memory into the operands of the tensor core: products do not care in which order k runs, so a lane loads 16
// contiguous bytes of a row and both factors use the lane's order.
//   scores: lane (g, q) loads of each of its two keys the dims 32 c + 8 q + 0..7, and of query g the same dims.
//   output: lane (g, q) loads of each of its four values the dims 64 d + 8 g + 0..7; tile e of the sums has the dims
//           8 n + e, n = 0..7, so that a lane ends with 16 dims side by side.
// Positions 4 q + 2 t + {0, 1} of the warp's 16 are columns 2 q + {0, 1} of score tile t: with that the scores lie
// where the second product wants its first factor. Weights are rounded to bfloat16 for it; their sum is not.
// merge_splits: one block per row and head.
#pragma once
#include "kernels/decode_ops.h"
#include "kernels/gpu_rows.h"

namespace archer::gpu {

constexpr int kAttentionWarps = 4;
constexpr int kWarpPositions = kPagePositions / kAttentionWarps;

constexpr size_t attention_shared_bytes(int head_dim) {
  return sizeof(float) * kAttentionWarps * kMaxGroup * (static_cast<size_t>(head_dim) + 2);
}

ARCHER_DEVICE uint32_t word_of(const Word4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}
ARCHER_DEVICE uint32_t low_halves(uint32_t first, uint32_t second) { return (first & 0xFFFFu) | second << 16; }
ARCHER_DEVICE uint32_t high_halves(uint32_t first, uint32_t second) { return first >> 16 | (second & 0xFFFF0000u); }

template <int kHeadDim>
ARCHER_DEVICE void attend_split(const AttentionParams& p) {
  constexpr int kChunks = kHeadDim / 32, kBlocks = kHeadDim / 64;
  const int split = block_rank() % p.num_splits, pair = block_rank() / p.num_splits;
  const int row = pair / p.num_kv_heads, kv_head = pair % p.num_kv_heads;
  const DecodeRow state = p.rows[row];
  const int length = state.position + 1, first_page = split * kPagesPerSplit;
  if (state.state != RowState::running || first_page * kPagePositions >= length) return;

  const int group = p.num_heads / p.num_kv_heads;
  const int warp = thread_rank() / 32, g = thread_rank() % 32 / 4, q = thread_rank() % 4;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kHeadDim));
  const int64_t first_head = static_cast<int64_t>(row) * p.num_heads + kv_head * group;
  Word4 query[kChunks];
  ARCHER_UNROLL
  for (int c = 0; c < kChunks; ++c) {
    query[c] = g < group ? load_16(p.queries_BND + (first_head + g) * kHeadDim + c * 32 + q * 8) : Word4{0, 0, 0, 0};
  }

  float max = kLowestFloat, sum = 0.0f;  // of query g; the sum of this lane's positions alone
  float out[kBlocks * 8][2];
  ARCHER_UNROLL
  for (int i = 0; i < kBlocks * 8; ++i) out[i][0] = out[i][1] = 0.0f;

  for (int page = first_page; page < first_page + kPagesPerSplit; ++page) {
    const int first = page * kPagePositions + warp * kWarpPositions;
    if (first >= length) break;  // the whole warp
    const int64_t entry = p.cache.table_BP[static_cast<int64_t>(state.sequence) * p.cache.pages_per_row + page];
    const int64_t base =
        entry * p.cache.page_stride + (kv_head * kPagePositions + warp * kWarpPositions) * kHeadDim;
    // What lies behind the row's last position may be anything, NaN too: zeros instead.
    const auto load = [&](const uint16_t* from, int position) {
      return first + position < length ? load_16(from) : Word4{0, 0, 0, 0};
    };
    const int key = 4 * (g / 2) + g % 2, value = 4 * q;  // this lane's first ones of the warp's 16
    const uint16_t* const of_key = p.cache.keys + base + key * kHeadDim + q * 8;
    const uint16_t* const of_value = p.cache.values + base + value * kHeadDim + g * 8;
    Word4 keys[2][kChunks], values[kBlocks][4];
    ARCHER_UNROLL
    for (int t = 0; t < 2; ++t) {
      ARCHER_UNROLL
      for (int c = 0; c < kChunks; ++c) keys[t][c] = load(of_key + 2 * t * kHeadDim + c * 32, key + 2 * t);
    }
    ARCHER_UNROLL
    for (int d = 0; d < kBlocks; ++d) {
      ARCHER_UNROLL
      for (int i = 0; i < 4; ++i) values[d][i] = load(of_value + i * kHeadDim + d * 64, value + i);
    }

    float score[2][2];
    ARCHER_UNROLL
    for (int t = 0; t < 2; ++t) {
      score[t][0] = score[t][1] = 0.0f;
      ARCHER_UNROLL
      for (int c = 0; c < kChunks; ++c) {
        multiply_8x8x16(score[t], query[c].x, query[c].y, keys[t][c].x, keys[t][c].y);
        multiply_8x8x16(score[t], query[c].z, query[c].w, keys[t][c].z, keys[t][c].w);
      }
    }
    float page_max = kLowestFloat;
    ARCHER_UNROLL
    for (int t = 0; t < 2; ++t) {
      ARCHER_UNROLL
      for (int j = 0; j < 2; ++j) {
        const bool present = first + 4 * q + 2 * t + j < length;
        score[t][j] = present ? score[t][j] * scale : bits_to_float(0xFF800000u);
        page_max = max_of(page_max, score[t][j]);
      }
    }
    page_max = max_of(page_max, shuffle_xor(page_max, 1));
    page_max = max_of(page_max, shuffle_xor(page_max, 2));
    const float new_max = max_of(max, page_max), factor = exp2_flushed(max - new_max);
    max = new_max;
    float weight[2][2];
    sum *= factor;
    ARCHER_UNROLL
    for (int t = 0; t < 2; ++t) {
      ARCHER_UNROLL
      for (int j = 0; j < 2; ++j) {
        weight[t][j] = exp2_flushed(score[t][j] - max);
        sum += weight[t][j];
      }
    }
    const uint32_t near = pack_bf16(weight[0][0], weight[0][1]), far = pack_bf16(weight[1][0], weight[1][1]);
    ARCHER_UNROLL
    for (int d = 0; d < kBlocks; ++d) {
      ARCHER_UNROLL
      for (int e = 0; e < 8; ++e) {
        uint32_t of_positions[4];
        ARCHER_UNROLL
        for (int i = 0; i < 4; ++i) of_positions[i] = word_of(values[d][i], e / 2);
        float(&tile)[2] = out[d * 8 + e];
        tile[0] *= factor;
        tile[1] *= factor;
        if (e % 2 == 0) {
          multiply_8x8x16(tile, near, far, low_halves(of_positions[0], of_positions[1]),
                          low_halves(of_positions[2], of_positions[3]));
        } else {
          multiply_8x8x16(tile, near, far, high_halves(of_positions[0], of_positions[1]),
                          high_halves(of_positions[2], of_positions[3]));
        }
      }
    }
  }
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);

  // The four warps' sums, in warp order.
  float* const sums = reinterpret_cast<float*>(shared_memory());              // [warps, 8, D]
  float* const scales = sums + kAttentionWarps * kMaxGroup * kHeadDim;        // [warps, 8, 2]
  const int own = warp * kMaxGroup + g;
  if (q == 0) {
    scales[own * 2] = max;
    scales[own * 2 + 1] = sum;
  }
  ARCHER_UNROLL
  for (int d = 0; d < kBlocks; ++d) {
    ARCHER_UNROLL
    for (int j = 0; j < 2; ++j) {
      ARCHER_UNROLL
      for (int e = 0; e < 8; ++e) sums[own * kHeadDim + d * 64 + (2 * q + j) * 8 + e] = out[d * 8 + e][j];
    }
  }
  block_barrier();
  for (int item = thread_rank(); item < group * kHeadDim; item += kAttentionWarps * 32) {
    const int head = item / kHeadDim, dim = item % kHeadDim;
    float all_max = kLowestFloat;
    for (int w = 0; w < kAttentionWarps; ++w) all_max = max_of(all_max, scales[(w * kMaxGroup + head) * 2]);
    float total = 0.0f, weights = 0.0f;
    for (int w = 0; w < kAttentionWarps; ++w) {
      const int from = w * kMaxGroup + head;
      const float factor = exp2_flushed(scales[from * 2] - all_max);
      total += factor * sums[from * kHeadDim + dim];
      weights += factor * scales[from * 2 + 1];
    }
    const int64_t to = (first_head + head) * p.num_splits + split;
    p.split_sums[to * kHeadDim + dim] = total;
    if (dim == 0) {
      p.split_scales[to * 2] = all_max;
      p.split_scales[to * 2 + 1] = weights;
    }
  }
}

// kHeadDim threads: one per dim.
template <int kHeadDim>
ARCHER_DEVICE void merge_splits(const AttentionParams& p) {
  const int64_t row_and_head = block_rank();
  const DecodeRow state = p.rows[row_and_head / p.num_heads];
  uint16_t* const out = p.out_BND + row_and_head * kHeadDim + thread_rank();
  if (state.state != RowState::running) {
    *out = 0;
    return;
  }
  const int num_splits = state.position / kSplitPositions + 1;
  const float* const sums = p.split_sums + row_and_head * p.num_splits * kHeadDim + thread_rank();
  const float* const scales = p.split_scales + row_and_head * p.num_splits * 2;
  float max = kLowestFloat;
  for (int s = 0; s < num_splits; ++s) max = max_of(max, scales[s * 2]);
  float total = 0.0f, weights = 0.0f;
  for (int s = 0; s < num_splits; ++s) {
    const float factor = exp2_flushed(scales[s * 2] - max);
    total += factor * sums[static_cast<int64_t>(s) * kHeadDim];
    weights += factor * scales[s * 2 + 1];
  }
  *out = to_bf16(total / weights).bits;
}

}  // namespace archer::gpu
