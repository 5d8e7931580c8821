// The kernel of tile_linear.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include <algorithm>

#include "kernels/tile_epilogue.h"

namespace archer::kernels {
namespace {

// Products[32 n][32 r] of the outputs from n on and the rows from `row` on, and their way into the result, in small units: transposing
// 16 x 16 of them, then writing a row. A few units stand beside every step of the next product, where they cost next to nothing: the
// processor waits for the weight.
struct FinishedProducts {
  const float* products[2] = {};  // of the weight and, where there is one, of the second
  int64_t n = 0, row = 0, unit = 0, units = 0;

  static int64_t count(const TileLinear& job, int64_t row) {
    const int64_t rows = std::min(job.rows - row, kTile), weights = job.up_weight_NK ? 2 : 1;
    return 2 * weights * ((rows + 15) / 16) + rows;
  }

  inline __attribute__((always_inline)) void advance(const TileLinear& job, int64_t count, float (*lines)[kTile][kTile]) {
    const int64_t rows = std::min(job.rows - row, kTile), halves = 2 * ((rows + 15) / 16);
    const int64_t transposes = units - rows;
    for (const int64_t end = std::min(unit + count, units); unit < end; ++unit) {
      if (unit < transposes) {
        const int64_t weight = unit / halves, half = unit % halves % 2, group = unit % halves / 2;
        __m512i values[16];
        for (int64_t i = 0; i < 16; ++i) {
          values[i] = _mm512_load_si512(products[weight] + (16 * half + i) * kTile + 16 * group);
        }
        transpose16(values);
        for (int64_t i = 0; i < 16; ++i) _mm512_store_si512(lines[weight][16 * group + i] + 16 * half, values[i]);
        continue;
      }
      const auto line = [&](int weight) {
        const float* from = lines[weight][unit - transposes];
        return Line{_mm512_load_ps(from), _mm512_load_ps(from + 16)};
      };
      const bool gated = products[1] != nullptr;
      write_line(job.to, row + unit - transposes, n, first_columns(job.outputs - n), line(0), gated ? line(1) : Line{}, gated);
    }
  }
};

template <class Tiles>
void linear(const TileLinear& job, uint16_t* scratch) {
  const int64_t steps = tile_blocks(job.inputs), weights = job.up_weight_NK ? 2 : 1;
  alignas(64) float products[4][kBlockElements], lines[2][kTile][kTile];
  FinishedProducts finished;
  int64_t now = 0;
  typename Tiles::Session session;
  const auto multiply = [&](const uint16_t* weight_NK, int64_t n, int64_t row, float* to) __attribute__((always_inline)) {
    const HeadBlock weight = head_block(weight_NK, n, job.outputs, job.inputs, scratch);
    const uint16_t* packed = job.packed + (row / kTile) * steps * kBlockElements;
    const int64_t units = (finished.units + steps * weights - 1) / (steps * weights);
    // The weight's way from memory is all the time there is. The next block lies behind this one and is fetched meanwhile (a prefetch
    // past the end does nothing): every line beside a full product; where the tile unit has less to do, the processor's own
    // prefetchers are fast enough once they are sent ahead, and more would take the fill buffers from them.
    const char* next = reinterpret_cast<const char*>(weight_NK + (n + kTile) * job.inputs);
    const auto beside = [&](int64_t every) {
      return [&, every](int64_t k) __attribute__((always_inline)) {
        finished.advance(job, units, lines);
        for (int64_t i = row == 0 ? 0 : kTile; i < kTile; i += every) _mm_prefetch(next + (k * kTile + i) * 64, _MM_HINT_T1);
      };
    };
    if (job.rows - row <= kTile / 2) {
      Tiles::narrow_product(weight.rows, weight.stride, packed, steps, to, kTile, beside(8));
    } else {
      Tiles::template product<false>(weight.rows, weight.stride, kTile, packed, steps, to, kTile, beside(1));
    }
  };
  for (int64_t n = job.begin; n < job.end; n += kTile) {
    for (int64_t row = 0; row < job.rows; row += kTile, now ^= 2) {
      multiply(job.weight_NK, n, row, products[now]);
      if (job.up_weight_NK) multiply(job.up_weight_NK, n, row, products[now + 1]);
      finished = {{products[now], job.up_weight_NK ? products[now + 1] : nullptr}, n, row, 0, FinishedProducts::count(job, row)};
      if (job.rows - row > kTile / 2) finished.advance(job, finished.units, lines);  // the tile unit is the bottleneck: nothing waits
    }
  }
  finished.advance(job, finished.units, lines);
}

}  // namespace
}  // namespace archer::kernels
