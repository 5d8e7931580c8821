// What becomes of 32 sums of a linear layer in tiles (TileEpilogue), for tile_linear_kernels.h and tile_matmul_kernels.h.
#pragma once
#include "kernels/tile_linear.h"
#include "kernels/tile_ops.h"

namespace archer::kernels {
namespace {

struct Line {
  __m512 low, high;
};

inline Line widened(__m512i line) { return {widen_low(line), widen_high(line)}; }
inline Line rounded(const Line& sums) { return widened(narrow(sums.low, sums.high)); }
inline Line sum(const Line& a, const Line& b) { return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)}; }

inline __m512 silu(__m512 x) {
  const __m512 e = exp2_of(_mm512_mul_ps(x, _mm512_set1_ps(-1.4426950408889634f)));
  return _mm512_div_ps(x, _mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

// The sums of row r and of the outputs n .. n + 31, as far as they are there; `up`: those of the second weight.
inline __attribute__((always_inline)) void write_line(const TileEpilogue& to, int64_t r, int64_t n, __mmask32 there, Line sums,
                                                      Line up, bool gated) {
  const int64_t at = r * to.stride + n;
  if (to.wide_out_RN) {
    _mm512_mask_storeu_ps(to.wide_out_RN + at, static_cast<__mmask16>(there), sums.low);
    _mm512_mask_storeu_ps(to.wide_out_RN + at + 16, static_cast<__mmask16>(there >> 16), sums.high);
    return;
  }
  const auto line_of = [&](const uint16_t* from) { return widened(_mm512_maskz_loadu_epi16(there, from)); };
  const auto put = [&](uint16_t* target, const Line& line) {
    _mm512_mask_storeu_epi16(target + at, there, narrow(line.low, line.high));
  };
  if (to.bias_N) sums = sum(sums, line_of(to.bias_N + n));
  if (gated) {
    if (to.up_bias_N) up = sum(up, line_of(to.up_bias_N + n));
    if (to.gate_RN) put(to.gate_RN, sums);
    if (to.up_RN) put(to.up_RN, up);
    const Line gate = rounded(sums);
    up = rounded(up);
    sums = {_mm512_mul_ps(silu(gate.low), up.low), _mm512_mul_ps(silu(gate.high), up.high)};
  }
  if (to.residual_RN) sums = sum(rounded(sums), line_of(to.residual_RN + at));
  put(to.out_RN, sums);
}

}  // namespace
}  // namespace archer::kernels
