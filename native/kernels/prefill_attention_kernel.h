// Attention of a prompt's tokens over paged keys and values, written once for nvcc and for the emulation: include it after a
// header that defines the primitives of namespace archer::gpu.
//
// attend_tile: one block of four warps per tile of 64 queries and head, after FlashAttention-2: 16 queries per warp; the
// pages come one after the other through two buffers in shared memory, the next one's copies behind this one's products.
// A row of a page lies there in 16-byte pieces whose places are exchanged by the row's number (place_of), so that neither
// of the two ways of reading meets its own banks:
//   scores: lane (g, q) loads of key 8 t + g the dims 32 c + 8 q + 0..7, and of its two queries the same dims: products do
//           not care in which order k runs;
//   output: rows of values, transposed on their way to the tensor core.
// Scores lie where the second product wants its first factor. Weights are rounded to bfloat16 for it; their sum is not.
// A query's sums are those of whole pages, from the first to its own: they depend on no other query.
#pragma once
#include "kernels/decode_ops.h"
#include "kernels/gpu_rows.h"

namespace archer::gpu {

constexpr int kPrefillWarps = 4;
static_assert(kPrefillWarps * 16 == kPrefillTile && kPrefillTile == kPagePositions);

constexpr size_t prefill_shared_bytes(int head_dim) {
  return sizeof(uint16_t) * 2 * 2 * kPagePositions * static_cast<size_t>(head_dim);  // two buffers of keys and values
}

// Where piece `piece` of row `row` lies: two neighbouring rows differ in bit 2, any eight in all three.
template <int kHeadDim>
ARCHER_DEVICE int place_of(int row, int piece) {
  return row * kHeadDim + (piece ^ ((row & 1) << 2 | (row >> 1 & 3))) * 8;
}

// One page of one kv head into shared memory, keys and then values; positions from `length` on may hold anything, NaN too,
// and become zeros.
template <int kHeadDim>
ARCHER_DEVICE void copy_page_async(const PagedKeys& cache, int64_t base, int num_positions, uint16_t* shared) {
  constexpr int kPieces = kHeadDim / 8;
  for (int i = thread_rank(); i < kPagePositions * kPieces; i += kPrefillWarps * 32) {
    const int row = i / kPieces, piece = i % kPieces;
    uint16_t* const to = shared + place_of<kHeadDim>(row, piece);
    const int64_t from = base + row * kHeadDim + piece * 8;
    if (row < num_positions) {
      copy_async_16(to, cache.keys + from);
      copy_async_16(to + kPagePositions * kHeadDim, cache.values + from);
    } else {
      store_16(to, {0, 0, 0, 0});
      store_16(to + kPagePositions * kHeadDim, {0, 0, 0, 0});
    }
  }
  copy_commit();
}

template <int kHeadDim>
ARCHER_DEVICE void attend_tile(const PrefillParams& p) {
  constexpr int kChunks = kHeadDim / 32, kKeyTiles = kPagePositions / 8, kDimTiles = kHeadDim / 8;
  const PrefillTile tile = p.tiles[block_rank() / p.num_heads];
  const int head = block_rank() % p.num_heads, kv_head = head / (p.num_heads / p.num_kv_heads);
  const DecodeRow first = p.rows[tile.first_row];
  const int warp = thread_rank() / 32, lane = thread_rank() % 32, g = lane / 4, q = lane % 4;
  const int length = first.position + tile.num_rows, num_pages = (length + kPagePositions - 1) / kPagePositions;
  const int32_t* const table = p.cache.table_BP + static_cast<int64_t>(first.sequence) * p.cache.pages_per_row;
  auto* const shared = reinterpret_cast<uint16_t*>(shared_memory());  // [2][keys, values][64][D]
  const auto copy = [&](int page) {
    const int64_t base = table[page] * p.cache.page_stride + kv_head * kPagePositions * kHeadDim;
    copy_page_async<kHeadDim>(p.cache, base, length - page * kPagePositions,
                              shared + page % 2 * 2 * kPagePositions * kHeadDim);
  };
  copy(0);

  // This lane's two queries: rows g and g + 8 of the warp's sixteen.
  const int rows[2] = {warp * 16 + g, warp * 16 + g + 8};
  const auto element_of = [&](int row) {
    return ((static_cast<int64_t>(tile.first_row) + row) * p.num_heads + head) * kHeadDim;
  };
  Word4 query[2][kChunks];
  ARCHER_UNROLL
  for (int r = 0; r < 2; ++r) {
    ARCHER_UNROLL
    for (int c = 0; c < kChunks; ++c) {
      query[r][c] = rows[r] < tile.num_rows ? load_16(p.queries_TND + element_of(rows[r]) + c * 32 + q * 8)
                                            : Word4{0, 0, 0, 0};
    }
  }

  const float scale = kLog2E / std::sqrt(static_cast<float>(kHeadDim));
  float max[2] = {kLowestFloat, kLowestFloat}, sum[2] = {0.0f, 0.0f};  // the sums of this lane's positions alone
  float out[kDimTiles][4];
  ARCHER_UNROLL
  for (int n = 0; n < kDimTiles; ++n) out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;

  for (int page = 0; page < num_pages; ++page) {
    copy_wait<0>();
    block_barrier();  // this page is there, and nobody reads the one before it any more
    if (page + 1 < num_pages) copy(page + 1);
    const uint16_t* const keys = shared + page % 2 * 2 * kPagePositions * kHeadDim;
    const uint16_t* const values = keys + kPagePositions * kHeadDim;

    float score[kKeyTiles][4];  // queries g (two) and g + 8 (two), positions 8 t + 2 q + {0, 1}
    ARCHER_UNROLL
    for (int t = 0; t < kKeyTiles; ++t) {
      score[t][0] = score[t][1] = score[t][2] = score[t][3] = 0.0f;
      ARCHER_UNROLL
      for (int c = 0; c < kChunks; ++c) {
        const Word4 key = load_16(keys + place_of<kHeadDim>(t * 8 + g, c * 4 + q));
        multiply_16x8x16(score[t], {query[0][c].x, query[1][c].x, query[0][c].y, query[1][c].y}, key.x, key.y);
        multiply_16x8x16(score[t], {query[0][c].z, query[1][c].z, query[0][c].w, query[1][c].w}, key.z, key.w);
      }
    }

    ARCHER_UNROLL
    for (int r = 0; r < 2; ++r) {
      const int past = first.position + rows[r] + 1 - page * kPagePositions;  // positions of this page that query r sees
      float page_max = kLowestFloat;
      ARCHER_UNROLL
      for (int t = 0; t < kKeyTiles; ++t) {
        ARCHER_UNROLL
        for (int j = 0; j < 2; ++j) {
          float& value = score[t][2 * r + j];
          value = t * 8 + 2 * q + j < past ? value * scale : bits_to_float(0xFF800000u);
          page_max = max_of(page_max, value);
        }
      }
      page_max = max_of(page_max, shuffle_xor(page_max, 1));
      page_max = max_of(page_max, shuffle_xor(page_max, 2));
      const float new_max = max_of(max[r], page_max), factor = exp2_flushed(max[r] - new_max);
      max[r] = new_max;
      sum[r] *= factor;
      ARCHER_UNROLL
      for (int t = 0; t < kKeyTiles; ++t) {
        ARCHER_UNROLL
        for (int j = 0; j < 2; ++j) {
          float& value = score[t][2 * r + j];
          value = exp2_flushed(value - new_max);
          sum[r] += value;
        }
      }
      ARCHER_UNROLL
      for (int n = 0; n < kDimTiles; ++n) {
        out[n][2 * r] *= factor;
        out[n][2 * r + 1] *= factor;
      }
    }

    ARCHER_UNROLL
    for (int k = 0; k < kKeyTiles / 2; ++k) {  // 16 positions
      const float(&near)[4] = score[2 * k], (&far)[4] = score[2 * k + 1];
      const Word4 weights{pack_bf16(near[0], near[1]), pack_bf16(near[2], near[3]), pack_bf16(far[0], far[1]),
                          pack_bf16(far[2], far[3])};
      ARCHER_UNROLL
      for (int n = 0; n < kDimTiles; n += 2) {
        // Four 8 x 8 blocks: positions 0..7 and 8..15 of the first eight dims, then of the next eight.
        const Word4 blocks = load_transposed(values + place_of<kHeadDim>(k * 16 + lane % 16, n + lane / 16));
        multiply_16x8x16(out[n], weights, blocks.x, blocks.y);
        multiply_16x8x16(out[n + 1], weights, blocks.z, blocks.w);
      }
    }
  }

  ARCHER_UNROLL
  for (int r = 0; r < 2; ++r) {
    sum[r] += shuffle_xor(sum[r], 1);
    sum[r] += shuffle_xor(sum[r], 2);
    if (rows[r] >= tile.num_rows) continue;
    const float factor = 1.0f / sum[r];
    uint16_t* const to = p.out_TND + element_of(rows[r]) + 2 * q;
    ARCHER_UNROLL
    for (int n = 0; n < kDimTiles; ++n) {
      *reinterpret_cast<uint32_t*>(to + n * 8) = pack_bf16(out[n][2 * r] * factor, out[n][2 * r + 1] * factor);
    }
  }
}

}  // namespace archer::gpu
