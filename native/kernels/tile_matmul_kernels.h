// The kernels of tile_matmul.h over a policy `Tiles` (tile_ops.h), compiled once per instruction set.
#pragma once
#include "kernels/tile_epilogue.h"
#include "kernels/tile_matmul.h"

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

// A block of 32 x 32 sums that has still to be written to c, at row m and column n; up_sums: of the second weight.
struct FinishedBlock {
  const float *sums = nullptr, *up_sums = nullptr;
  int64_t m = 0, n = 0;
};

inline __attribute__((always_inline)) void write_row(const TileMatmul& job, const FinishedBlock& block, int64_t i) {
  const int64_t m = block.m + i, n = block.n;
  if (m >= job.rows) return;
  const auto line = [](const float* from) { return Line{_mm512_load_ps(from), _mm512_load_ps(from + 16)}; };
  const __mmask32 there = first_columns(job.columns - n);
  Line sums = line(block.sums + i * kTile);
  if (job.add) {
    const float* before = job.to.wide_out_RN + m * job.to.stride + n;
    sums = sum(sums, {_mm512_maskz_loadu_ps(static_cast<__mmask16>(there), before),
                      _mm512_maskz_loadu_ps(static_cast<__mmask16>(there >> 16), before + 16)});
  }
  write_line(job.to, m, n, there, sums, block.up_sums ? line(block.up_sums + i * kTile) : Line{}, block.up_sums != nullptr);
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
  const int64_t a_stride = job.a_in_blocks ? kTile : job.inner, weights = job.gated ? 2 : 1;
  const int64_t blocks = weights * tile_blocks(job.columns), lines = (kTile + blocks - 1) / blocks;
  float* wide = job.to.wide_out_RN;
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
      const float* gate_sums = nullptr;
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t n = block / weights * kTile;
        // Sums go straight to c where a whole block of it is wide and comes of one product.
        const bool direct = parts == 1 && wide && m + kTile <= job.rows && n + kTile <= job.columns;
        const float* next_c = wide + m * job.to.stride + n + (direct ? kTile : 0);
        float* c = direct ? wide + m * job.to.stride + n : sums + (parts > 1 ? block : next_sums++ & 3) * kBlockElements;
        const int64_t c_stride = direct ? job.to.stride : kTile;
        const auto beside = [&](int64_t step) __attribute__((always_inline)) {
          for (int64_t i = 2 * step; i < 2 * step + 2 && i < kTile; ++i) {
            if (finished.sums) write_row(job, finished, i);
            if (!wide || !is_last) continue;
            _mm_prefetch(reinterpret_cast<const char*>(next_c + i * job.to.stride), _MM_HINT_T0);
            _mm_prefetch(reinterpret_cast<const char*>(next_c + i * job.to.stride + 16), _MM_HINT_T0);
          }
          for (int64_t i = block * lines; i < (block + 1) * lines && i < kTile && step < count; ++i) {
            _mm_prefetch(reinterpret_cast<const char*>(next_a + step * a_step + i * a_stride), _MM_HINT_T1);
          }
        };
        for (int64_t step = count; step < kTile / 2; ++step) beside(step);  // the rest, first: the product may overwrite it
        const uint16_t* b = job.b + (block * steps + k) * kBlockElements;
        if (k > 0 || (direct && job.add)) {
          Tiles::template product<true, Passes::b>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, beside);
        } else {
          Tiles::template product<false, Passes::b>(a.rows + k * a_step, a.stride, a_step, b, count, c, c_stride, beside);
        }
        finished = {};
        if (direct || !is_last) continue;
        if (!job.gated) finished = {c, nullptr, m, n};
        else if (block % 2 == 1) finished = {gate_sums, c, m, n};
        gate_sums = c;
      }
    }
  }
  for (int64_t i = 0; finished.sums && i < kTile; ++i) write_row(job, finished, i);
}

}  // namespace
}  // namespace archer::kernels
