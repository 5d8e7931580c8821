// The kernel of tile_attention.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set. Of it, beside Session:
// Tiles::strip<Add>(a, steps, b, columns, rows, c): c[16][columns] (+)= a b, a[16][32 steps] as it lies, b packed as
//   [columns / 16][steps][16 pairs][16 columns][2]; rows beyond `rows` may be left out.
// Tiles::column(a, lda, b, steps, c): c[64][16] = a b, a[64][32 steps] with row stride lda, b packed as [steps][16 pairs][16][2];
//   where Tiles::kReadsKeys.
// A block of values is interleaved once, for all queries that see it. So are keys transposed: scores and sums come with a row per
// query, and only the queries that are there pay for exponentials. Decoding has but one tile of queries: transposing its scores
// instead, and reading the keys as they lie, is less work (the same products, added in the same order: the same bits).
#pragma once
#include <initializer_list>

#include "kernels/tile_attention.h"
#include "kernels/tile_head_kernels.h"

namespace archer::kernels {
namespace {

// What is known of 16 queries after some blocks of keys.
struct QueryTile {
  uint16_t* query;     // [16][D], D up to whole blocks of 32: zeros beyond the end
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

inline void start(const TileAttention& job, const QueryTile& tile, int64_t columns) {
  std::memset(tile.query, 0, static_cast<size_t>(kQueryTile * columns) * sizeof(uint16_t));
  each_query(tile, job.group, [&](int64_t row, int64_t token, int64_t head) {
    std::memcpy(tile.query + row * columns, job.query + token * job.query_stride + head * job.head_dim,
                static_cast<size_t>(job.head_dim) * sizeof(uint16_t));
    _mm512_store_ps(tile.total + row * kQueryTile, _mm512_setzero_ps());
  });
  _mm512_store_ps(tile.largest, _mm512_set1_ps(-__builtin_inff()));
}

// 64 lines of keys or of values; `whole`: all are there in one piece, and D is a number of whole blocks.
struct LineBlock {
  const uint16_t* lines;
  int64_t stride, count, head_dim;
  const uint16_t *next, *following;  // the block behind it, and what is read after that
  int64_t next_count;
  int64_t in_lines = kKeyBlock;      // so many stand in `lines`, the others in `rest`: where a prefix ends within the block
  const uint16_t* rest = nullptr;
};

// Where a sequence's lines stand: those of its first `prefix` positions, and the others.
struct Lines {
  const uint16_t *prefix_lines, *own;
  int64_t prefix, stride;
  const uint16_t* at(int64_t position) const {
    return position < prefix ? prefix_lines + position * stride : own + (position - prefix) * stride;
  }
  // How many lines of the block of positions that begins with `first` stand in one piece.
  int64_t in_one_piece(int64_t first) const {
    const int64_t left = prefix - first;
    return 0 < left && left < kKeyBlock ? left : kKeyBlock;
  }
};

// Columns d .. d + 31 of line j, zeros where there is nothing (whose infinities times our zeros were NaN).
template <bool whole>
inline __m512i line_of(const LineBlock& block, int64_t j, int64_t d) {
  if (whole) return _mm512_loadu_si512(block.lines + j * block.stride + d);
  const uint16_t* line = j < block.in_lines ? block.lines + j * block.stride : block.rest + (j - block.in_lines) * block.stride;
  return _mm512_maskz_loadu_epi16(j < block.count ? first_columns(block.head_dim - d) : 0u, line + d);
}

// Decoding does little per line: the 64 lines behind this block are fetched from memory meanwhile.
inline void fetch_next(const LineBlock& block, int64_t j, int64_t d) {
  const int64_t beyond = j - block.next_count;
  const uint16_t* line = beyond < 0 ? block.next + j * block.stride : block.following + beyond * block.stride;
  _mm_prefetch(reinterpret_cast<const char*>(line + d), _MM_HINT_T1);
}

// What column() reads of the keys: the block as it lies, or a copy with zeros around it.
inline HeadBlock keys_to_read(const LineBlock& keys, bool whole, int64_t columns, uint16_t* copy) {
  if (whole) return {keys.lines, keys.stride};
  for (int64_t j = 0; j < kKeyBlock; ++j) {
    for (int64_t d = 0; d < columns; d += kTile) _mm512_store_si512(copy + j * columns + d, line_of<false>(keys, j, d));
  }
  return {copy, columns};
}

// z[64 keys][16 queries] -> scores[16][64]
inline void transpose_scores(const float* z, float* scores) {
  for (int j = 0; j < kKeyBlock; j += 16) {
    __m512i lines[16];
    for (int i = 0; i < 16; ++i) lines[i] = _mm512_load_si512(z + (j + i) * kQueryTile);
    transpose16(lines);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(scores + i * kKeyBlock + j, lines[i]);
  }
}

// query[16][D] -> [D / 32][16 pairs][16 queries][2]
inline void pair_query(const uint16_t* query, int64_t columns, uint16_t* pairs) {
  for (int64_t d = 0; d < columns; d += kTile, pairs += 512) {
    __m512i lines[16];
    for (int i = 0; i < 16; ++i) lines[i] = _mm512_loadu_si512(query + i * columns + d);
    transpose16(lines);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(pairs + i * 32, lines[i]);
  }
}

// [64 / 16][D / 32][16 pairs][16 keys][2]
template <bool whole>
inline void transpose_keys(const LineBlock& keys, int64_t columns, uint16_t* out) {
  for (int64_t j = 0; j < kKeyBlock; j += 16) {
    for (int64_t d = 0; d < columns; d += kTile, out += 512) {
      __m512i lines[16];
      for (int64_t i = 0; i < 16; ++i) lines[i] = line_of<whole>(keys, j + i, d);
      transpose16(lines);
      for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(out + i * 32, lines[i]);
    }
  }
}

// [D / 16][64 / 32][16 pairs][16 columns][2]
template <bool whole>
inline void interleave_values(const LineBlock& values, const LineBlock& keys, int64_t columns, uint16_t* out) {
  const __m512i low = interleave_index(false), high = interleave_index(true);
  for (int64_t j = 0; j < kKeyBlock; j += 2) {
    for (int64_t d = 0; d < columns; d += kTile) {
      const __m512i a = line_of<whole>(values, j, d), b = line_of<whole>(values, j + 1, d);
      for (const LineBlock* block : {&values, &keys}) {
        fetch_next(*block, j, d);
        fetch_next(*block, j + 1, d);
      }
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

// The largest of a row of scores; those of the keys from `visible` on become -infinity first. NaN may be passed over: its weight
// is NaN anyway.
inline float largest_score(float* scores, int64_t visible) {
  __m512 z[4];
  for (int i = 0; i < 4; ++i) {
    const __mmask16 seen = static_cast<__mmask16>(first_columns(visible - 16 * i));
    z[i] = _mm512_mask_loadu_ps(_mm512_set1_ps(-__builtin_inff()), seen, scores + 16 * i);
    if (visible < kKeyBlock) _mm512_store_ps(scores + 16 * i, z[i]);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(z[0], z[1]), _mm512_max_ps(z[2], z[3])));
}

// One block of keys, by their scores[16][64], and values for one tile of queries. `to_base_2` is the scale of the scores times log2 e; visible: how many of
// the keys each query may see.
template <class Tiles>
inline void visit(const QueryTile& tile, float* scores, const uint16_t* values, int64_t columns, float to_base_2,
                  bool is_first, const int64_t* visible, uint16_t* weights) {
  alignas(64) float highest[kQueryTile] = {}, shrink[kQueryTile];
  for (int64_t row = 0; row < tile.rows; ++row) highest[row] = largest_score(scores + row * kKeyBlock, visible[row]);
  const __m512 scale = _mm512_set1_ps(to_base_2), before = _mm512_load_ps(tile.largest);
  const __m512 largest = _mm512_max_ps(_mm512_load_ps(highest), before);
  const __m512 factors = weight_of(_mm512_mul_ps(_mm512_sub_ps(before, largest), scale));
  _mm512_store_ps(tile.largest, largest);
  _mm512_store_ps(shrink, factors);
  for (int64_t row = 0; row < tile.rows; ++row) {
    const __m512 top = _mm512_set1_ps(tile.largest[row]);
    __m512 p[4];
    for (int i = 0; i < 4; ++i) {
      p[i] = weight_of(_mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(scores + row * kKeyBlock + 16 * i), top), scale));
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(p[0], p[1]), _mm512_add_ps(p[2], p[3]));
    float* total = tile.total + row * kQueryTile;
    _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_load_ps(total), _mm512_set1_ps(shrink[row]), sum));
    _mm512_store_si512(weights + row * kKeyBlock, narrow(p[0], p[1]));
    _mm512_store_si512(weights + row * kKeyBlock + 32, narrow(p[2], p[3]));
  }
  if (is_first) return Tiles::template strip<false>(weights, kKeyBlock / kTile, values, columns, tile.rows, tile.mixed);
  // Most blocks change no maximum; times 1 would change no bit.
  const unsigned there = (1u << tile.rows) - 1u;
  for (unsigned left = there & _mm512_cmp_ps_mask(factors, _mm512_set1_ps(1.0f), _CMP_NEQ_UQ); left; left &= left - 1) {
    const int row = __builtin_ctz(left);
    const __m512 factor = _mm512_set1_ps(shrink[row]);
    for (float* line = tile.mixed + row * columns; line < tile.mixed + (row + 1) * columns; line += 16) {
      _mm512_store_ps(line, _mm512_mul_ps(_mm512_load_ps(line), factor));
    }
  }
  Tiles::template strip<true>(weights, kKeyBlock / kTile, values, columns, tile.rows, tile.mixed);
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
  uint16_t* keys = reinterpret_cast<uint16_t*>(scratch);
  uint16_t* values = keys + kKeyBlock * columns;
  uint16_t* query_pairs = values + kKeyBlock * columns;
  float* states = scratch + (kKeyBlock + kQueryTile / 2) * columns;
  alignas(64) uint16_t weights[kQueryTile * kKeyBlock] = {};
  alignas(64) float scores[kQueryTile * kKeyBlock];
  for (int64_t i = 0; i < tiles; ++i) start(job, query_tile(states, i, columns, rows), columns);
  const bool reads_keys = Tiles::kReadsKeys && tiles == 1;
  if (reads_keys) pair_query(query_tile(states, 0, columns, rows).query, columns, query_pairs);
  typename Tiles::Session session;
  const Lines all_keys{job.prefix_keys, job.keys, job.prefix, job.key_stride};
  const Lines all_values{job.prefix_values, job.values, job.prefix, job.key_stride};
  for (int64_t first = 0; first < job.end; first += kKeyBlock) {
    const int64_t left = job.end - first, count = left < kKeyBlock ? left : kKeyBlock;
    const int64_t next_left = left - count, next_count = next_left < kKeyBlock ? next_left : kKeyBlock;
    const int64_t in_lines = all_keys.in_one_piece(first);
    const auto block_of = [&](const Lines& lines) {
      const auto at = [&](int64_t position) {
        return job.pages ? lines.own + job.pages[position / kKeyBlock] * job.page_stride : lines.at(position);
      };
      return LineBlock{at(first), job.key_stride, count, job.head_dim, at(next_count > 0 ? first + kKeyBlock : first),
                       lines.own + job.following, next_count, in_lines, lines.own};
    };
    const LineBlock key_lines = block_of(all_keys), value_lines = block_of(all_values);
    const bool whole = count == kKeyBlock && in_lines == kKeyBlock && columns == job.head_dim;
    if (reads_keys) {
      if constexpr (Tiles::kReadsKeys) {
        alignas(64) float z[kKeyBlock * kQueryTile];
        const HeadBlock block = keys_to_read(key_lines, whole, columns, keys);
        Tiles::column(block.rows, block.stride, query_pairs, columns / kTile, z);
        transpose_scores(z, scores);
      }
    } else if (whole) {
      transpose_keys<true>(key_lines, columns, keys);
    } else {
      transpose_keys<false>(key_lines, columns, keys);
    }
    if (whole) interleave_values<true>(value_lines, key_lines, columns, values);
    else interleave_values<false>(value_lines, key_lines, columns, values);
    for (int64_t i = 0; i < tiles; ++i) {
      const QueryTile tile = query_tile(states, i, columns, rows);
      int64_t visible[kQueryTile];
      each_query(tile, job.group, [&](int64_t row, int64_t token, int64_t) {
        visible[row] = left > kKeyBlock ? kKeyBlock : job.begin + token - first + 1;
      });
      if (!reads_keys) Tiles::template strip<false>(tile.query, columns / kTile, keys, kKeyBlock, tile.rows, scores);
      visit<Tiles>(tile, scores, values, columns, job.scale * 1.44269504f, first == 0, visible, weights);
    }
  }
  for (int64_t i = 0; i < tiles; ++i) finish(job, query_tile(states, i, columns, rows), columns);
}

}  // namespace
}  // namespace archer::kernels
