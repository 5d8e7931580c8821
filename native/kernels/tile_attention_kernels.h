// The kernel of tile_attention.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set. Of it, beside Session:
// Tiles::scores(a, lda, b, steps, c): c[64][16] = sum over steps k of a_k b_k, a_k = 64 x 32 at a + 32 k with row stride lda,
//   b_k packed at b + 512 k as [16 pairs][16 columns][2].
// Tiles::mix<Add>(a, b, columns, rows, c): c[16][columns] (+)= a[16][64] b, b packed as [columns / 16][2][16 pairs][16 columns][2];
//   rows beyond `rows` may be left out.
// Scores arrive with the keys along rows and the queries along lanes (keys are read as they lie): the largest is taken so, then
// they are transposed, and only the queries that are there pay for exponentials.
#pragma once
#include "kernels/tile_attention.h"
#include "kernels/tile_head_kernels.h"

namespace archer::kernels {
namespace {

// What is known of 16 queries after some blocks of keys.
struct QueryTile {
  uint16_t* packed;    // [D / 32][16 pairs][16 queries][2]
  float* mixed;        // [16][D]: sum of weight times value, relative to the largest score
  float* total;        // [16][16]: sum of weights, by key modulo 16
  float* largest;      // [16] scores, not scaled
  int64_t first_row;   // (token, head) pair of the first query
  int64_t rows;        // queries that are there
};

inline QueryTile query_tile(float* states, int64_t index, int64_t columns, int64_t rows) {
  float* state = states + index * tile_state_floats(columns);
  float* mixed = state + kQueryTile * columns / 2;
  float* total = mixed + kQueryTile * columns;
  const int64_t first = index * kQueryTile, left = rows - first;
  return {reinterpret_cast<uint16_t*>(state), mixed, total, total + kQueryTile * kQueryTile, first,
          left < kQueryTile ? left : kQueryTile};
}

// The first `rows` (token, head) pairs of a tile in their order: body(row, token, head).
template <class Body>
inline void each_query(const QueryTile& tile, int64_t group, Body body) {
  int64_t token = tile.first_row / group, head = tile.first_row % group;
  for (int64_t row = 0; row < tile.rows; ++row) {
    body(row, token, head);
    if (++head == group) head = 0, ++token;
  }
}

inline void start(const TileAttention& job, const QueryTile& tile) {
  const uint16_t* lines[kQueryTile];
  each_query(tile, job.group, [&](int64_t row, int64_t token, int64_t head) {
    lines[row] = job.query + token * job.query_stride + head * job.head_dim;
  });
  for (int64_t block = 0; block < tile_blocks(job.head_dim); ++block) {
    const __mmask32 there = first_columns(job.head_dim - block * kTile);
    __m512i pairs[16];
    for (int64_t i = 0; i < 16; ++i) {
      pairs[i] = i < tile.rows ? _mm512_maskz_loadu_epi16(there, lines[i] + block * kTile) : _mm512_setzero_si512();
    }
    transpose16(pairs);
    for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(tile.packed + block * 512 + i * 32, pairs[i]);
  }
  for (int64_t i = 0; i < kQueryTile; ++i) _mm512_store_ps(tile.total + i * kQueryTile, _mm512_setzero_ps());
  _mm512_store_ps(tile.largest, _mm512_set1_ps(-__builtin_inff()));
}

// 64 keys as they lie; copied with zeros around them where a tile would reach beyond the last key or into the next head.
inline HeadBlock key_block(const TileAttention& job, int64_t first, int64_t count, int64_t columns, uint16_t* scratch) {
  const uint16_t* keys = job.keys + first * job.key_stride;
  if (count == kKeyBlock && columns == job.head_dim) return {keys, job.key_stride};
  for (int64_t j = 0; j < kKeyBlock; ++j) {
    for (int64_t d = 0; d < columns; d += kTile) {
      const __mmask32 there = j < count ? first_columns(job.head_dim - d) : 0u;
      _mm512_store_si512(scratch + j * columns + d, _mm512_maskz_loadu_epi16(there, keys + j * job.key_stride + d));
    }
  }
  return {scratch, columns};
}

// 64 values as the right-hand side of mix(): rows in pairs, zeros beyond the last one.
inline void interleave_values(const TileAttention& job, int64_t first, int64_t count, int64_t columns, uint16_t* out) {
  const __m512i low = interleave_index(false), high = interleave_index(true);
  for (int64_t j = 0; j < kKeyBlock; j += 2) {
    const uint16_t* line = job.values + (first + j) * job.key_stride;
    for (int64_t d = 0; d < columns; d += kTile) {
      const __mmask32 there = first_columns(job.head_dim - d);
      const __m512i a = _mm512_maskz_loadu_epi16(j < count ? there : 0u, line + d);
      const __m512i b = _mm512_maskz_loadu_epi16(j + 1 < count ? there : 0u, line + job.key_stride + d);
      uint16_t* target = out + d * kKeyBlock + j * 16;
      _mm512_store_si512(target, _mm512_permutex2var_epi16(a, low, b));
      _mm512_store_si512(target + 16 * kKeyBlock, _mm512_permutex2var_epi16(a, high, b));
    }
  }
}

// 2^x, 0 from 2^-126 down; keeps NaN.
inline __m512 weight_of(__m512 x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ), exp2_of(x));
}

// z[64 keys][16 queries] -> by_query[16][64], the largest of `largest` and each query's column on the way. visible: how many of
// the keys each query may see; the others' scores become -infinity.
template <bool Masked>
inline __m512 turn_scores(const float* z, const int32_t* visible, __m512 largest, float* by_query) {
  for (int j = 0; j < kKeyBlock; j += 16) {
    __m512i lines[16];
    for (int i = 0; i < 16; ++i) {
      __m512 line = _mm512_load_ps(z + (j + i) * kQueryTile);
      if (Masked) {
        const __mmask16 seen = _mm512_cmpgt_epi32_mask(_mm512_load_si512(visible), _mm512_set1_epi32(j + i));
        line = _mm512_mask_mov_ps(_mm512_set1_ps(-__builtin_inff()), seen, line);
      }
      largest = _mm512_max_ps(line, largest);  // in this order NaN is passed over: its weight is NaN anyway
      lines[i] = _mm512_castps_si512(line);
    }
    transpose16(lines);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(by_query + i * kKeyBlock + j, lines[i]);
  }
  return largest;
}

// One block of keys and values for one tile of queries. `to_base_2` is the scale of the scores times log2 e.
template <class Tiles>
inline void visit(const QueryTile& tile, const HeadBlock& keys, const uint16_t* values, int64_t columns, float to_base_2,
                  bool is_first, const int32_t* visible, uint16_t* weights) {
  alignas(64) float z[kKeyBlock * kQueryTile], by_query[kQueryTile * kKeyBlock], shrink[kQueryTile];
  Tiles::scores(keys.rows, keys.stride, tile.packed, columns / kTile, z);
  const __m512 scale = _mm512_set1_ps(to_base_2), before = _mm512_load_ps(tile.largest);
  const __m512 largest = visible ? turn_scores<true>(z, visible, before, by_query)
                                 : turn_scores<false>(z, visible, before, by_query);
  const __m512 factors = weight_of(_mm512_mul_ps(_mm512_sub_ps(before, largest), scale));
  _mm512_store_ps(tile.largest, largest);
  _mm512_store_ps(shrink, factors);
  for (int64_t row = 0; row < tile.rows; ++row) {
    const __m512 top = _mm512_set1_ps(tile.largest[row]);
    __m512 p[4];
    for (int i = 0; i < 4; ++i) {
      p[i] = weight_of(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(by_query + row * kKeyBlock + 16 * i), top), scale));
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(p[0], p[1]), _mm512_add_ps(p[2], p[3]));
    float* total = tile.total + row * kQueryTile;
    _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_load_ps(total), _mm512_set1_ps(shrink[row]), sum));
    _mm512_store_si512(weights + row * kKeyBlock, narrow(p[0], p[1]));
    _mm512_store_si512(weights + row * kKeyBlock + 32, narrow(p[2], p[3]));
  }
  if (is_first) return Tiles::template mix<false>(weights, values, columns, tile.rows, tile.mixed);
  // Most blocks change no maximum; times 1 would change no bit.
  const unsigned there = (1u << tile.rows) - 1u;
  for (unsigned left = there & _mm512_cmp_ps_mask(factors, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ); left; left &= left - 1) {
    const int row = __builtin_ctz(left);
    const __m512 factor = _mm512_set1_ps(shrink[row]);
    for (float* line = tile.mixed + row * columns; line < tile.mixed + (row + 1) * columns; line += 16) {
      _mm512_store_ps(line, _mm512_mul_ps(_mm512_load_ps(line), factor));
    }
  }
  Tiles::template mix<true>(weights, values, columns, tile.rows, tile.mixed);
}

inline void finish(const TileAttention& job, const QueryTile& tile, int64_t columns) {
  each_query(tile, job.group, [&](int64_t row, int64_t token, int64_t head) {
    const float total = _mm512_reduce_add_ps(_mm512_load_ps(tile.total + row * kQueryTile));
    const __m512 divisor = _mm512_set1_ps(total);
    const float* line = tile.mixed + row * columns;
    uint16_t* out = job.out + token * job.query_stride + head * job.head_dim;
    for (int64_t d = 0; d < columns; d += kTile) {
      // Plus 0: a sum that vanished may carry the sign of what lay behind the query.
      const __m512 low = _mm512_add_ps(_mm512_div_ps(_mm512_load_ps(line + d), divisor), _mm512_setzero_ps());
      const __m512 high = _mm512_add_ps(_mm512_div_ps(_mm512_load_ps(line + d + 16), divisor), _mm512_setzero_ps());
      _mm512_mask_storeu_epi16(out + d, first_columns(job.head_dim - d), narrow(low, high));
    }
    if (job.logsumexp) {
      job.logsumexp[token * job.lse_stride + head] = tile.largest[row] * job.scale + std::log(total);
    }
  });
}

template <class Tiles>
void attention(const TileAttention& job, float* scratch) {
  const int64_t columns = tile_blocks(job.head_dim) * kTile, rows = (job.end - job.begin) * job.group;
  const int64_t tiles = (rows + kQueryTile - 1) / kQueryTile;
  uint16_t* key_copy = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* value_pairs = key_copy + kKeyBlock * columns;
  float* states = scratch + kKeyBlock * columns;
  alignas(64) uint16_t weights[kQueryTile * kKeyBlock] = {};
  for (int64_t i = 0; i < tiles; ++i) start(job, query_tile(states, i, columns, rows));
  typename Tiles::Session session;
  for (int64_t first = 0; first < job.end; first += kKeyBlock) {
    const int64_t count = job.end - first < kKeyBlock ? job.end - first : kKeyBlock;
    const HeadBlock keys = key_block(job, first, count, columns, key_copy);
    interleave_values(job, first, count, columns, value_pairs);
    const bool is_last = first + kKeyBlock >= job.end;
    for (int64_t i = 0; i < tiles; ++i) {
      const QueryTile tile = query_tile(states, i, columns, rows);
      alignas(64) int32_t visible[kQueryTile] = {};
      if (is_last) {
        each_query(tile, job.group, [&](int64_t row, int64_t token, int64_t) {
          visible[row] = static_cast<int32_t>(job.begin + token - first + 1);
        });
      }
      visit<Tiles>(tile, keys, value_pairs, columns, job.scale * 1.44269504f, first == 0, is_last ? visible : nullptr, weights);
    }
  }
  for (int64_t i = 0; i < tiles; ++i) finish(job, query_tile(states, i, columns, rows), columns);
}

}  // namespace
}  // namespace archer::kernels
