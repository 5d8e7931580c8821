// What the tile kernels have in common: packing, transposing and conversion around a policy `Tiles` that multiplies 32 x 32
// blocks. For tiles_amx.cpp and tiles_avx512.cpp alone (their flags allow AVX-512 with BF16, VBMI2).
// Tiles::product<Add, Passes>(a, lda, a_step, b, steps, c, ldc, aside):
//   c[32][32] (+)= sum over steps k of a_k b_k, a_k = 32 x 32 at a + k a_step with row stride lda, b_k packed at b + 1024 k
//   as [2][16 pairs][16 columns][2]. aside(k) runs beside step k: work for the vector units while the tile unit is busy.
// Tiles::narrow_product(a, lda, b, steps, c, ldc, aside): the first 16 columns of the same, to the bit, where the others are padding.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12's own _mm512_undefined_*, which means it
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "kernels/tile_head.h"

namespace archer::kernels {
namespace {

enum class Passes { a, b };  // the operand of a product that passes by once, while products in a row share the other

struct Nothing {
  void operator()(int64_t) const {}
};

// Indices that interleave two rows of 32: their first 16 columns, their last 16.
inline __m512i interleave_index(bool last) {
  const __m512i base = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4,
                                        35, 3, 34, 2, 33, 1, 32, 0);
  return last ? _mm512_add_epi16(base, _mm512_set1_epi16(16)) : base;
}

inline __mmask32 first_columns(int64_t n) {
  return n >= 32 ? 0xFFFFFFFFu : n <= 0 ? 0u : (1u << static_cast<unsigned>(n)) - 1u;
}

// 16 x 16 double words, in place.
inline void transpose16(__m512i r[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

inline __m512 widen_low(__m512i row) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(row)), 16));
}
inline __m512 widen_high(__m512i row) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(row, 1)), 16));
}
inline __m512i narrow(__m512 low, __m512 high) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// 2^x for x >= -126, to about 2e-7 relative and exact for whole x; overflows to infinity, keeps NaN. The polynomial is a
// least-squares fit at Chebyshev nodes of [-1/2, 1/2].
inline __m512 exp2_of(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.3218672e-3f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6716983e-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5508930e-2f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022238e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314688e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, whole);
}

void pack_hidden(const TileRows& rows, uint16_t* packed) {
  const int64_t hidden_blocks = tile_blocks(rows.hidden);
  for (int64_t r = 0; r < tile_blocks(rows.rows) * kTile; r += 16) {
    for (int64_t h = 0; h < hidden_blocks; ++h) {
      const __mmask32 columns = first_columns(rows.hidden - h * kTile);
      __m512i lines[16];
      for (int64_t i = 0; i < 16; ++i) {
        lines[i] = r + i < rows.rows
                       ? _mm512_maskz_loadu_epi16(
                             columns, rows.hidden_TH + (rows.tokens_R ? rows.tokens_R[r + i] : r + i) * rows.hidden + h * kTile)
                       : _mm512_setzero_si512();
      }
      transpose16(lines);
      uint16_t* out = packed + ((r / kTile) * hidden_blocks + h) * kBlockElements + (r % kTile) * 32;
      for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(out + i * 32, lines[i]);
    }
  }
}

// 32 rows of the head as they lie; copied with zeros around them where a tile would reach beyond the vocabulary or into the
// next row (whose infinities times our zeros were NaN).
struct HeadBlock {
  const uint16_t* rows;
  int64_t stride;
};

inline HeadBlock head_block(const uint16_t* head_VH, int64_t v, int64_t vocabulary, int64_t hidden, uint16_t* scratch) {
  if (v + kTile <= vocabulary && hidden % kTile == 0) return {head_VH + v * hidden, hidden};
  const int64_t stride = tile_blocks(hidden) * kTile;
  std::memset(scratch, 0, static_cast<size_t>(kTile * stride) * sizeof(uint16_t));
  for (int64_t i = 0; i < kTile && v + i < vocabulary; ++i) {
    std::memcpy(scratch + i * stride, head_VH + (v + i) * hidden, static_cast<size_t>(hidden) * sizeof(uint16_t));
  }
  return {scratch, stride};
}

}  // namespace
}  // namespace archer::kernels
