// The kernels of tile_matmul.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_matmul.h"
#include "kernels/tile_ops.h"

namespace archer::kernels {
namespace {

constexpr int64_t kInnerSteps = 18;  // blocks of a panel of b that stays in the L1 cache while rows pass by

void pack_pairs(const TileMatrix& x, int64_t begin, int64_t end, uint16_t* packed) {
  const int64_t row_blocks = tile_blocks(x.rows);
  const __m512i first = interleave_index(false), last = interleave_index(true);
  for (int64_t block = begin; block < end; ++block) {
    for (int64_t c = 0; c < x.columns; c += kTile) {
      const __mmask32 there = first_columns(x.columns - c);
      const auto line = [&](int64_t i) {
        return i < x.rows ? _mm512_maskz_loadu_epi16(there, x.values + i * x.stride + c) : _mm512_setzero_si512();
      };
      uint16_t* out = packed + (c / kTile * row_blocks + block) * kBlockElements;
      for (int64_t r = block * kTile; r < (block + 1) * kTile; r += 2, out += 32) {
        const __m512i a = line(r), b = line(r + 1);
        _mm512_storeu_si512(out, _mm512_permutex2var_epi16(a, first, b));
        _mm512_storeu_si512(out + kBlockElements / 2, _mm512_permutex2var_epi16(a, last, b));
      }
    }
  }
}

void transpose(const TileMatrix& x, int64_t begin, int64_t end, uint16_t* blocks) {
  const int64_t row_blocks = tile_blocks(x.rows);
  const __m512i first = interleave_index(false), last = interleave_index(true);
  for (int64_t block = begin; block < end; ++block) {
    for (int64_t c = 0; c < x.columns; c += kTile) {
      const __mmask32 there = first_columns(x.columns - c);
      uint16_t* out = blocks + (c / kTile * row_blocks + block) * kBlockElements;
      const auto line = [&](int64_t i) {
        const int64_t r = block * kTile + i;
        return r < x.rows ? _mm512_maskz_loadu_epi16(there, x.values + r * x.stride + c) : _mm512_setzero_si512();
      };
      for (int half = 0; half < 2; ++half) {  // 16 columns at a time: more would not fit the registers
        __m512i lines[16];
        for (int64_t i = 0; i < 16; ++i) lines[i] = _mm512_permutex2var_epi16(line(2 * i), half ? last : first, line(2 * i + 1));
        transpose16(lines);
        for (int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(out + half * 512 + i * 32, lines[i]);
      }
    }
  }
}

// What a block of 32 x 32 sums becomes at the edges of c, and where it is rounded.
inline void write_block(const TileMatmul& job, const float* sums, int64_t m, int64_t n, int64_t rows, int64_t columns) {
  const __mmask32 there = first_columns(columns);
  const __mmask16 low_there = static_cast<__mmask16>(there), high_there = static_cast<__mmask16>(there >> 16);
  for (int64_t i = 0; i < rows; ++i, sums += kTile) {
    const int64_t at = (m + i) * job.stride + n;
    __m512 low = _mm512_load_ps(sums), high = _mm512_load_ps(sums + 16);
    if (job.rounded) {
      _mm512_mask_storeu_epi16(job.rounded + at, there, narrow(low, high));
      continue;
    }
    if (job.add) {
      low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_there, job.wide + at));
      high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_there, job.wide + at + 16));
    }
    _mm512_mask_storeu_ps(job.wide + at, low_there, low);
    _mm512_mask_storeu_ps(job.wide + at + 16, high_there, high);
  }
}

template <class Tiles>
void matmul(const TileMatmul& job, uint16_t* scratch, float* sums) {
  const int64_t steps = tile_blocks(job.inner), parts = (steps + kInnerSteps - 1) / kInnerSteps;
  const int64_t steps_at_once = (steps + parts - 1) / parts, a_step = job.a_in_blocks ? kBlockElements : kTile;
  typename Tiles::Session session;
  for (int64_t n = 0; n < job.columns; n += kTile) {
    const int64_t columns = job.columns - n < kTile ? job.columns - n : kTile;
    for (int64_t k = 0; k < steps; k += steps_at_once) {
      const uint16_t* b = job.b + (n / kTile * steps + k) * kBlockElements;
      const int64_t count = steps - k < steps_at_once ? steps - k : steps_at_once;
      for (int64_t m = job.row_begin; m < job.row_end; m += kTile) {
        const int64_t rows = job.rows - m < kTile ? job.rows - m : kTile;
        const HeadBlock a = job.a_in_blocks ? HeadBlock{job.a + m / kTile * steps * kBlockElements, kTile}
                                            : head_block(job.a, m, job.rows, job.inner, scratch);
        // Sums go straight to c where a whole block of it is wide. The next block of c is fetched meanwhile: it lies in rows far
        // apart, and often in memory.
        const bool direct = job.wide && rows == kTile && columns == kTile;
        float* c = direct ? job.wide + m * job.stride + n : sums + (m - job.row_begin) * kTile;
        const int64_t c_stride = direct ? job.stride : kTile, lines_per_step = (kTile + count - 1) / count;
        int64_t next = (m + kTile) * job.stride + n;
        const auto fetch = [&](int64_t) __attribute__((always_inline)) {
          for (int64_t i = 0; i < lines_per_step; ++i, next += job.stride) {
            if (job.wide) {
              _mm_prefetch(reinterpret_cast<const char*>(job.wide + next), _MM_HINT_T0);
              _mm_prefetch(reinterpret_cast<const char*>(job.wide + next + 16), _MM_HINT_T0);
            } else {
              _mm_prefetch(reinterpret_cast<const char*>(job.rounded + next), _MM_HINT_T0);
            }
          }
        };
        if (k > 0 || (direct && job.add)) {
          Tiles::template product<true>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, fetch);
        } else {
          Tiles::template product<false>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, fetch);
        }
        if (!direct && k + count == steps) write_block(job, c, m, n, rows, columns);
      }
    }
  }
}

}  // namespace
}  // namespace archer::kernels
