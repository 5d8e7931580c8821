// y = x Wᵀ (+ bias) where an element of y is one dot product in one order of additions: its bits depend on its own row of x
// and its own row of W alone, not on how many rows there are. BLAS picks another kernel by that number, and with it other
// bits. For float32, for float64, and for bfloat16 weights where there are no tiles (tile_linear.h).
// Legend: R rows, K inputs, N outputs. The callers share out N among threads.
#pragma once
#include <cstdint>

#include "kernels/decoder_math.h"

namespace archer::kernels {

template <typename T>  // float, double, or uint16_t: bfloat16
struct RowLinear {
  const Accumulator<T>* x_RK;
  const T* weight_NK;
  const T* bias_N;  // or null
  Accumulator<T>* out_RN;
  int64_t rows, inputs, outputs;
  int64_t begin, end;  // outputs of this call
};

template <typename T>
void row_linear(const RowLinear<T>& job);

}  // namespace archer::kernels
