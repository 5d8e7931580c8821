// The kernel of tile_linear.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_linear.h"
#include "kernels/tile_ops.h"

namespace archer::kernels {
namespace {

// products[32 n][32 r] -> rows of y.
inline void write_rows(const TileLinear& job, const float* products, int64_t n, int64_t row) {
  const int64_t columns = n + kTile <= job.outputs ? kTile : job.outputs - n;
  const __mmask32 there = first_columns(columns);
  __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  if (job.bias_N) {
    const __m512i line = _mm512_maskz_loadu_epi16(there, job.bias_N + n);
    bias[0] = widen_low(line);
    bias[1] = widen_high(line);
  }
  for (int64_t first = 0; first < kTile && row + first < job.rows; first += 16) {
    __m512i halves[2][16];
    for (int half = 0; half < 2; ++half) {
      for (int64_t i = 0; i < 16; ++i) halves[half][i] = _mm512_load_si512(products + (16 * half + i) * kTile + first);
      transpose16(halves[half]);
    }
    for (int64_t i = 0; i < 16 && row + first + i < job.rows; ++i) {
      const __m512 low = _mm512_add_ps(_mm512_castsi512_ps(halves[0][i]), bias[0]);
      const __m512 high = _mm512_add_ps(_mm512_castsi512_ps(halves[1][i]), bias[1]);
      const int64_t at = (row + first + i) * job.outputs + n;
      if (job.out_RN) {
        _mm512_mask_storeu_epi16(job.out_RN + at, there, narrow(low, high));
      } else {
        _mm512_mask_storeu_ps(job.wide_out_RN + at, static_cast<__mmask16>(there), low);
        _mm512_mask_storeu_ps(job.wide_out_RN + at + 16, static_cast<__mmask16>(there >> 16), high);
      }
    }
  }
}

template <class Tiles>
void linear(const TileLinear& job, uint16_t* scratch) {
  const int64_t steps = tile_blocks(job.inputs);
  alignas(64) float products[kBlockElements];
  typename Tiles::Session session;
  for (int64_t n = job.begin; n < job.end; n += kTile) {
    const HeadBlock weight = head_block(job.weight_NK, n, job.outputs, job.inputs, scratch);
    // Few rows: the weight's way from memory is all the time there is. The next block's lines are fetched while this one is
    // multiplied; they lie behind it (a prefetch past the end does nothing).
    const char* next = reinterpret_cast<const char*>(job.weight_NK + (n + kTile) * job.inputs);
    for (int64_t row = 0; row < job.rows; row += kTile) {
      const int64_t ahead = row == 0 ? kTile : 0;
      const auto fetch = [&](int64_t k) __attribute__((always_inline)) {
        for (int64_t i = 0; i < ahead; ++i) _mm_prefetch(next + (k * kTile + i) * 64, _MM_HINT_T1);
      };
      const uint16_t* packed = job.packed + (row / kTile) * steps * kBlockElements;
      if (job.rows - row <= kTile / 2) {
        Tiles::narrow_product(weight.rows, weight.stride, packed, steps, products, kTile, fetch);
      } else {
        Tiles::template product<false>(weight.rows, weight.stride, kTile, packed, steps, products, kTile, fetch);
      }
      write_rows(job, products, n, row);
    }
  }
}

}  // namespace
}  // namespace archer::kernels
