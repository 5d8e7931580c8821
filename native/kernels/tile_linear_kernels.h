// The kernel of tile_linear.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_linear.h"
#include "kernels/tile_ops.h"

namespace archer::kernels {
namespace {

// A product that has been computed and not yet written: products[32 n][32 r] of the outputs from n on and the rows from `row` on.
struct Finished {
  const float* products = nullptr;
  int64_t n = 0, row = 0;
};

// Rows 16 part .. 16 part + 15 of it -> rows of y.
inline __attribute__((always_inline)) void write_rows(const TileLinear& job, const Finished& finished, int64_t part) {
  const int64_t row = finished.row + 16 * part, n = finished.n;
  if (!finished.products || part > 1 || row >= job.rows) return;
  const __mmask32 there = first_columns(job.outputs - n);
  __m512 bias[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  if (job.bias_N) {
    const __m512i line = _mm512_maskz_loadu_epi16(there, job.bias_N + n);
    bias[0] = widen_low(line);
    bias[1] = widen_high(line);
  }
  __m512i halves[2][16];
  for (int half = 0; half < 2; ++half) {
    for (int64_t i = 0; i < 16; ++i) {
      halves[half][i] = _mm512_load_si512(finished.products + (16 * half + i) * kTile + 16 * part);
    }
    transpose16(halves[half]);
  }
  for (int64_t i = 0; i < 16 && row + i < job.rows; ++i) {
    const __m512 low = _mm512_add_ps(_mm512_castsi512_ps(halves[0][i]), bias[0]);
    const __m512 high = _mm512_add_ps(_mm512_castsi512_ps(halves[1][i]), bias[1]);
    const int64_t at = (row + i) * job.outputs + n;
    if (job.out_RN) {
      _mm512_mask_storeu_epi16(job.out_RN + at, there, narrow(low, high));
    } else {
      _mm512_mask_storeu_ps(job.wide_out_RN + at, static_cast<__mmask16>(there), low);
      _mm512_mask_storeu_ps(job.wide_out_RN + at + 16, static_cast<__mmask16>(there >> 16), high);
    }
  }
}

// A product is written beside the next one: reading what tiles have just stored would wait for it.
template <class Tiles>
void linear(const TileLinear& job, uint16_t* scratch) {
  const int64_t steps = tile_blocks(job.inputs);
  alignas(64) float products[2][kBlockElements];
  Finished finished;
  int now = 0;
  typename Tiles::Session session;
  for (int64_t n = job.begin; n < job.end; n += kTile) {
    const HeadBlock weight = head_block(job.weight_NK, n, job.outputs, job.inputs, scratch);
    // Few rows: the weight's way from memory is all the time there is. The next block lies behind this one and is fetched
    // meanwhile (a prefetch past the end does nothing): every line beside a full product; where the tile unit has less to do, the
    // processor's own prefetchers are fast enough once they are sent ahead, and more would take the fill buffers from them.
    const char* next = reinterpret_cast<const char*>(job.weight_NK + (n + kTile) * job.inputs);
    for (int64_t row = 0; row < job.rows; row += kTile, now ^= 1) {
      const uint16_t* packed = job.packed + (row / kTile) * steps * kBlockElements;
      const auto aside = [&](int64_t every) {
        return [&, every](int64_t k) __attribute__((always_inline)) {
          write_rows(job, finished, k);
          for (int64_t i = row == 0 ? 0 : kTile; i < kTile; i += every) _mm_prefetch(next + (k * kTile + i) * 64, _MM_HINT_T1);
        };
      };
      if (job.rows - row <= kTile / 2) {
        Tiles::narrow_product(weight.rows, weight.stride, packed, steps, products[now], kTile, aside(8));
      } else {
        Tiles::template product<false>(weight.rows, weight.stride, kTile, packed, steps, products[now], kTile, aside(1));
      }
      if (steps == 1) write_rows(job, finished, 1);
      finished = {products[now], n, row};
    }
  }
  for (const int64_t part : {0, 1}) write_rows(job, finished, part);
}

}  // namespace
}  // namespace archer::kernels
