// The kernel of tile_linear.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_epilogue.h"

namespace archer::kernels {
namespace {

// products[32 n][32 r] of the outputs from n on -> rows of the result, `row` and following.
inline void write_products(const TileLinear& job, const float* products, const float* up_products, int64_t n, int64_t row) {
  const __mmask32 there = first_columns(job.outputs - n);
  for (int64_t first = row; first < row + kTile && first < job.rows; first += 16) {
    __m512i halves[2][16], up_halves[2][16];
    const auto transposed = [&](const float* from, __m512i (&to)[2][16]) __attribute__((always_inline)) {
      for (int half = 0; half < 2; ++half) {
        for (int64_t i = 0; i < 16; ++i) to[half][i] = _mm512_load_si512(from + (16 * half + i) * kTile + first - row);
        transpose16(to[half]);
      }
    };
    transposed(products, halves);
    if (up_products) transposed(up_products, up_halves);
    for (int64_t i = 0; i < 16 && first + i < job.rows; ++i) {
      const Line sums{_mm512_castsi512_ps(halves[0][i]), _mm512_castsi512_ps(halves[1][i])};
      const Line up = up_products ? Line{_mm512_castsi512_ps(up_halves[0][i]), _mm512_castsi512_ps(up_halves[1][i])} : Line{};
      write_line(job.to, first + i, n, there, sums, up, up_products != nullptr);
    }
  }
}

template <class Tiles>
void linear(const TileLinear& job, uint16_t* scratch) {
  const int64_t steps = tile_blocks(job.inputs);
  alignas(64) float products[kBlockElements], up_products[kBlockElements];
  typename Tiles::Session session;
  const auto multiply = [&](const uint16_t* weight_NK, int64_t n, int64_t row, float* to) __attribute__((always_inline)) {
    const HeadBlock weight = head_block(weight_NK, n, job.outputs, job.inputs, scratch);
    const uint16_t* packed = job.packed + (row / kTile) * steps * kBlockElements;
    // The weight's way from memory is all the time there is. The next block lies behind this one and is fetched meanwhile (a prefetch
    // past the end does nothing): every line beside a full product; where the tile unit has less to do, the processor's own
    // prefetchers are fast enough once they are sent ahead, and more would take the fill buffers from them.
    const char* next = reinterpret_cast<const char*>(weight_NK + (n + kTile) * job.inputs);
    const auto fetch = [&](int64_t every) {
      return [=](int64_t k) __attribute__((always_inline)) {
        for (int64_t i = row == 0 ? 0 : kTile; i < kTile; i += every) _mm_prefetch(next + (k * kTile + i) * 64, _MM_HINT_T1);
      };
    };
    if (job.rows - row <= kTile / 2) {
      Tiles::narrow_product(weight.rows, weight.stride, packed, steps, to, kTile, fetch(8));
    } else {
      Tiles::template product<false>(weight.rows, weight.stride, kTile, packed, steps, to, kTile, fetch(1));
    }
  };
  for (int64_t n = job.begin; n < job.end; n += kTile) {
    for (int64_t row = 0; row < job.rows; row += kTile) {
      multiply(job.weight_NK, n, row, products);
      if (job.up_weight_NK) multiply(job.up_weight_NK, n, row, up_products);
      write_products(job, products, job.up_weight_NK ? up_products : nullptr, n, row);
    }
  }
}

}  // namespace
}  // namespace archer::kernels
