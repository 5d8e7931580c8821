// The kernels of tile_matmul.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_matmul.h"
#include "kernels/tile_ops.h"

namespace archer::kernels {
namespace {

constexpr int64_t kInnerSteps = 18;  // blocks of 32 rows of a that fit the L1 cache

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

// A block of 32 x 32 sums that has still to be written to c, at row m and column n.
struct FinishedBlock {
  const float* sums = nullptr;
  int64_t m = 0, n = 0;
};

// Row i of it, at the edges of c too.
inline __attribute__((always_inline)) void write_row(const TileMatmul& job, const FinishedBlock& block, int64_t i) {
  if (block.m + i >= job.rows) return;
  const __mmask32 there = first_columns(job.columns - block.n);
  const __mmask16 low_there = static_cast<__mmask16>(there), high_there = static_cast<__mmask16>(there >> 16);
  const int64_t at = (block.m + i) * job.stride + block.n;
  __m512 low = _mm512_load_ps(block.sums + i * kTile), high = _mm512_load_ps(block.sums + i * kTile + 16);
  if (job.rounded) {
    if (job.bias) {
      const __m512i bias = _mm512_maskz_loadu_epi16(there, job.bias + block.n);
      low = _mm512_add_ps(low, widen_low(bias));
      high = _mm512_add_ps(high, widen_high(bias));
    }
    _mm512_mask_storeu_epi16(job.rounded + at, there, narrow(low, high));
    return;
  }
  if (job.add) {
    low = _mm512_add_ps(low, _mm512_maskz_loadu_ps(low_there, job.wide + at));
    high = _mm512_add_ps(high, _mm512_maskz_loadu_ps(high_there, job.wide + at + 16));
  }
  _mm512_mask_storeu_ps(job.wide + at, low_there, low);
  _mm512_mask_storeu_ps(job.wide + at + 16, high_there, high);
}

inline const uint16_t* block_of_a(const TileMatmul& job, int64_t m, int64_t steps) {
  return job.a + (job.a_in_blocks ? m / kTile * steps * kBlockElements : m * job.inner);
}

// 32 rows of a, or a part of their columns, stay in the L1 cache while b passes by from the L2. A block of sums is written beside the
// product that follows it: reading what tiles have just stored would wait for it.
template <class Tiles>
void matmul(const TileMatmul& job, uint16_t* scratch, float* sums) {
  const int64_t steps = tile_blocks(job.inner), parts = (steps + kInnerSteps - 1) / kInnerSteps;
  const int64_t steps_at_once = (steps + parts - 1) / parts, a_step = job.a_in_blocks ? kBlockElements : kTile;
  const int64_t a_stride = job.a_in_blocks ? kTile : job.inner;
  const int64_t column_blocks = tile_blocks(job.columns), lines = (kTile + column_blocks - 1) / column_blocks;
  FinishedBlock finished;
  int64_t next_sums = 0;
  typename Tiles::Session session;
  for (int64_t m = job.row_begin; m < job.row_end; m += kTile) {
    const HeadBlock a = job.a_in_blocks ? HeadBlock{block_of_a(job, m, steps), kTile}
                                        : head_block(job.a, m, job.rows, job.inner, scratch);
    for (int64_t k = 0; k < steps; k += steps_at_once) {
      const int64_t count = steps - k < steps_at_once ? steps - k : steps_at_once;
      const bool is_last = k + count == steps;
      // Both a and c are often in memory: the part of a that is next and the block of c that is next are fetched meanwhile.
      const uint16_t* next_a = is_last ? block_of_a(job, m + kTile, steps) : block_of_a(job, m, steps) + (k + count) * a_step;
      for (int64_t n = 0; n < job.columns; n += kTile) {
        // Sums go straight to c where a whole block of it is wide and comes of one product.
        const bool direct = parts == 1 && job.wide && m + kTile <= job.rows && n + kTile <= job.columns;
        const float* next_c = job.wide + m * job.stride + n + (direct ? kTile : 0);
        float* c = direct ? job.wide + m * job.stride + n
                          : sums + (parts > 1 ? n / kTile : next_sums++ & 1) * kBlockElements;
        const int64_t c_stride = direct ? job.stride : kTile;
        const auto beside = [&](int64_t step) __attribute__((always_inline)) {
          for (int64_t i = 2 * step; i < 2 * step + 2 && i < kTile; ++i) {
            if (finished.sums) write_row(job, finished, i);
            if (!job.wide || !is_last) continue;
            _mm_prefetch(reinterpret_cast<const char*>(next_c + i * job.stride), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(next_c + i * job.stride + 16), _MM_HINT_T0);
          }
          for (int64_t i = n / kTile * lines; i < (n / kTile + 1) * lines && i < kTile && step < count; ++i) {
            _mm_prefetch(reinterpret_cast<const char*>(next_a + step * a_step + i * a_stride), _MM_HINT_T1);
          }
        };
        for (int64_t step = count; step < kTile / 2; ++step) beside(step);  // the rest, first: the product may overwrite it
        const uint16_t* b = job.b + (n / kTile * steps + k) * kBlockElements;
        if (k > 0 || (direct && job.add)) {
          Tiles::template product<true, Passes::b>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, beside);
        } else {
          Tiles::template product<false, Passes::b>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, beside);
        }
        finished = {};
        if (!direct && is_last) finished = {c, m, n};
      }
    }
  }
  for (int64_t i = 0; finished.sums && i < kTile; ++i) write_row(job, finished, i);
}

}  // namespace
}  // namespace archer::kernels
