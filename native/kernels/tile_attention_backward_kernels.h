// The kernel of tile_attention_backward.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set. Scores stand
// transposed, keys by queries: p and ds then are left operands of dv and dk as they are, and dq is computed transposed, where ds is
// the right one. Queries are (token, head) pairs, the heads of a token one after the other; of a stretch of 64 tokens, 64 G rows.
#pragma once
#include <tuple>

#include "kernels/tile_attention_backward_scratch.h"
#include "kernels/tile_attention_kernels.h"
#include "kernels/tile_matmul_kernels.h"

namespace archer::kernels {
namespace {

// The rows of a stretch of tokens, zeros where there is none: they have p = 1, but no gradient.
inline void gather_rows(const TileAttentionBackward& job, int64_t begin, int64_t tokens, const BackwardScratch& s) {
  const int64_t rows = s.row_tiles * kTile;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = row / job.group, head = row % job.group;
    s.token[row] = static_cast<int32_t>(token);
    const bool there = token < tokens;
    const int64_t at = (begin - job.prefix + token) * job.query_stride + head * job.head_dim;
    __m512 delta = _mm512_setzero_ps();
    for (int64_t d = 0; d < s.columns; d += kTile) {
      const __mmask32 columns = there ? first_columns(job.head_dim - d) : 0u;
      const __m512i dout = _mm512_maskz_loadu_epi16(columns, job.dout + at + d);
      const __m512i out = _mm512_maskz_loadu_epi16(columns, job.out + at + d);
      delta = _mm512_fmadd_ps(widen_low(dout), widen_low(out), delta);
      delta = _mm512_fmadd_ps(widen_high(dout), widen_high(out), delta);
      _mm512_storeu_si512(s.dout_rows + row * s.columns + d, dout);
      _mm512_storeu_si512(s.query_rows + row * s.columns + d, _mm512_maskz_loadu_epi16(columns, job.query + at + d));
    }
    s.delta[row] = _mm512_reduce_add_ps(delta);
    s.logsumexp[row] = there ? job.logsumexp[(begin - job.prefix + token) * job.lse_stride + head] * 1.44269504f : 0.0f;
  }
  for (const auto& [states, pairs, columns] : {std::tuple{s.query_rows, s.query_pairs, s.query_columns},
                                               std::tuple{s.dout_rows, s.dout_pairs, s.dout_columns}}) {
    pack_pairs({states, rows, s.columns, s.columns}, 0, s.row_tiles, pairs);
    pack_hidden({states, nullptr, rows, s.columns}, columns);
  }
}

// scores and dweights [32 keys][32 rows], products without scale -> weights p and dscores ds, the latter also by pairs of keys.
// `first_key`: of the block, relative to the stretch of the queries; only where it is not negative keys may lie behind a query.
inline void weigh(const float* scores, const float* dweights, float scale, int64_t first_key, const BackwardScratch& s,
                  int64_t row, uint16_t* weights, uint16_t* dscores, uint16_t* dscore_pairs) {
  const __m512i low = interleave_index(false), high = interleave_index(true);
  const __m512 to_base_2 = _mm512_set1_ps(scale * 1.44269504f), scales = _mm512_set1_ps(scale);
  const __m512 lse[2] = {_mm512_load_ps(s.logsumexp + row), _mm512_load_ps(s.logsumexp + row + 16)};
  const __m512 delta[2] = {_mm512_load_ps(s.delta + row), _mm512_load_ps(s.delta + row + 16)};
  const __m512i token[2] = {_mm512_load_si512(s.token + row), _mm512_load_si512(s.token + row + 16)};
  for (int64_t key = 0; key < kTile; key += 2) {
    __m512i lines[2];
    for (int64_t i = 0; i < 2; ++i) {
      const __m512i position = _mm512_set1_epi32(static_cast<int32_t>(first_key + key + i));
      __m512 p[2], ds[2];
      for (int half = 0; half < 2; ++half) {
        const int64_t at = (key + i) * kTile + 16 * half;
        const __mmask16 seen = _mm512_cmple_epi32_mask(position, token[half]);
        p[half] = weight_of(_mm512_fmsub_ps(_mm512_load_ps(scores + at), to_base_2, lse[half]));
        p[half] = _mm512_maskz_mov_ps(seen, p[half]);
        ds[half] = _mm512_maskz_mul_ps(seen, _mm512_mul_ps(p[half], scales), _mm512_sub_ps(_mm512_load_ps(dweights + at), delta[half]));
      }
      lines[i] = narrow(ds[0], ds[1]);
      _mm512_store_si512(weights + (key + i) * kTile, narrow(p[0], p[1]));
      _mm512_store_si512(dscores + (key + i) * kTile, lines[i]);
    }
    _mm512_store_si512(dscore_pairs + key * 16, _mm512_permutex2var_epi16(lines[0], low, lines[1]));
    _mm512_store_si512(dscore_pairs + key * 16 + 512, _mm512_permutex2var_epi16(lines[0], high, lines[1]));
  }
}

// dquery blocks -> rows.
inline void write_dquery(const TileAttentionBackward& job, int64_t begin, int64_t tokens, const BackwardScratch& s) {
  const int64_t rows = tokens * job.group, column_tiles = s.columns / kTile;
  for (int64_t row = 0; row < rows; row += 16) {
    for (int64_t d = 0; d < s.columns; d += 16) {
      const float* block = s.dquery + (row / kTile * column_tiles + d / kTile) * kBlockElements;
      __m512i lines[16];
      for (int64_t i = 0; i < 16; ++i) lines[i] = _mm512_load_si512(block + (d % kTile + i) * kTile + row % kTile);
      transpose16(lines);
      const __mmask16 there = static_cast<__mmask16>(first_columns(job.head_dim - d));
      for (int64_t i = 0; i < 16 && row + i < rows; ++i) {
        const int64_t token = begin - job.prefix + (row + i) / job.group;
        float* line = job.dquery + token * job.query_stride + (row + i) % job.group * job.head_dim + d;
        _mm512_mask_storeu_ps(line, there, _mm512_castsi512_ps(lines[i]));
      }
    }
  }
}

inline void write_dkeys(const TileAttentionBackward& job, const BackwardScratch& s) {
  for (int64_t d = 0; d < s.columns; d += 16) {
    const __mmask16 there = static_cast<__mmask16>(first_columns(job.head_dim - d));
    const auto add = [&](const float* sums, float* line) {
      _mm512_mask_storeu_ps(line, there, _mm512_add_ps(_mm512_maskz_loadu_ps(there, line), _mm512_load_ps(sums)));
    };
    for (int64_t t = 0; t < job.prefix; ++t) {
      add(s.dkeys + t * s.columns + d, job.prefix_dkeys + t * job.key_stride + d);
      add(s.dvalues + t * s.columns + d, job.prefix_dvalues + t * job.key_stride + d);
    }
  }
  for (int64_t t = job.prefix; t < job.length; ++t) {
    for (int64_t d = 0; d < s.columns; d += kTile) {
      const __mmask32 there = first_columns(job.head_dim - d);
      const float *dk = s.dkeys + t * s.columns + d, *dv = s.dvalues + t * s.columns + d;
      const int64_t at = (t - job.prefix) * job.key_stride + d;
      _mm512_mask_storeu_ps(job.dkeys + at, static_cast<__mmask16>(there), _mm512_load_ps(dk));
      _mm512_mask_storeu_ps(job.dkeys + at + 16, static_cast<__mmask16>(there >> 16), _mm512_load_ps(dk + 16));
      _mm512_mask_storeu_epi16(job.dvalues + at, there, narrow(_mm512_load_ps(dv), _mm512_load_ps(dv + 16)));
    }
  }
}

// One block of keys and a stretch of queries that see them; `first_key` relative to the stretch.
template <class Tiles>
inline void visit_back(const HeadBlock& keys, const HeadBlock& values, const uint16_t* keys_transposed, int64_t first_key,
                       float scale, const BackwardScratch& s, float* dkeys, float* dvalues) {
  const int64_t column_tiles = s.columns / kTile, row_tiles = s.row_tiles;
  alignas(64) float scores[kBlockElements], dweights[kBlockElements];
  for (int64_t r = 0; r < row_tiles; ++r) {
    const int64_t states = r * column_tiles * kBlockElements;
    uint16_t* pairs = s.dscore_pairs + r * kKeyTiles * kBlockElements;
    for (int64_t k = 0; k < kKeyTiles; ++k) {
      const int64_t at = (k * row_tiles + r) * kBlockElements;
      Tiles::template product<false>(keys.rows + k * kTile * keys.stride, keys.stride, kTile, s.query_columns + states,
                                     column_tiles, scores, kTile, Nothing{});
      Tiles::template product<false>(values.rows + k * kTile * values.stride, values.stride, kTile, s.dout_columns + states,
                                     column_tiles, dweights, kTile, Nothing{});
      weigh(scores, dweights, scale, first_key + k * kTile, s, r * kTile, s.weights + at, s.dscores + at,
            pairs + k * kBlockElements);
    }
    for (int64_t d = 0; d < column_tiles; ++d) {
      Tiles::template product<true>(keys_transposed + d * kKeyTiles * kBlockElements, kTile, kBlockElements, pairs, kKeyTiles,
                                    s.dquery + (r * column_tiles + d) * kBlockElements, kTile, Nothing{});
    }
  }
  for (int64_t k = 0; k < kKeyTiles; ++k) {
    for (int64_t d = 0; d < column_tiles; ++d) {
      const int64_t from = k * row_tiles * kBlockElements, states = d * row_tiles * kBlockElements;
      const int64_t to = k * kTile * s.columns + d * kTile;
      Tiles::template product<true>(s.weights + from, kTile, kBlockElements, s.dout_pairs + states, row_tiles, dvalues + to,
                                    s.columns, Nothing{});
      Tiles::template product<true>(s.dscores + from, kTile, kBlockElements, s.query_pairs + states, row_tiles, dkeys + to,
                                    s.columns, Nothing{});
    }
  }
}

template <class Tiles>
void attention_backward(const TileAttentionBackward& job, float* scratch) {
  BackwardScratch s;
  lay_out(job.length, job.group, job.head_dim, scratch, s);
  const int64_t positions = (job.length + kKeyBlock - 1) / kKeyBlock * kKeyBlock;
  std::memset(s.dkeys, 0, static_cast<size_t>(positions * s.columns) * sizeof(float));
  std::memset(s.dvalues, 0, static_cast<size_t>(positions * s.columns) * sizeof(float));
  const Lines all_keys{job.prefix_keys, job.keys, job.prefix, job.key_stride};
  const Lines all_values{job.prefix_values, job.values, job.prefix, job.key_stride};
  const auto block_of = [&](const Lines& lines, int64_t first, uint16_t* copy) {
    const int64_t count = job.length - first < kKeyBlock ? job.length - first : kKeyBlock, in_lines = lines.in_one_piece(first);
    const bool whole = count == kKeyBlock && in_lines == kKeyBlock && s.columns == job.head_dim;
    return keys_to_read({lines.at(first), job.key_stride, count, job.head_dim, nullptr, nullptr, 0, in_lines, lines.own}, whole,
                        s.columns, copy);
  };
  typename Tiles::Session session;
  int64_t num_transposed = 0;  // keys, in whole blocks
  for (int64_t begin = job.prefix; begin < job.length; begin += kKeyBlock) {
    const int64_t tokens = job.length - begin < kKeyBlock ? job.length - begin : kKeyBlock;
    gather_rows(job, begin, tokens, s);
    std::memset(s.dquery, 0, static_cast<size_t>(s.row_tiles * kTile * s.columns) * sizeof(float));
    for (int64_t first = 0; first < begin + tokens; first += kKeyBlock) {
      const HeadBlock keys = block_of(all_keys, first, s.keys), values = block_of(all_values, first, s.values);
      uint16_t* transposed = s.keys_transposed + first * s.columns;
      if (first == num_transposed) {
        transpose({keys.rows, kKeyBlock, s.columns, keys.stride}, 0, kKeyTiles, transposed);
        num_transposed += kKeyBlock;
      }
      visit_back<Tiles>(keys, values, transposed, first - begin, job.scale, s, s.dkeys + first * s.columns,
                        s.dvalues + first * s.columns);
    }
    write_dquery(job, begin, tokens, s);
  }
  write_dkeys(job, s);
}

}  // namespace
}  // namespace archer::kernels
