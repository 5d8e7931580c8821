// y = x Wᵀ (+ bias) of few rows in bfloat16 tiles, float32 sums: decoding and logits. The weight passes by as it lies, so nothing is
// prepacked and an update of the weights is seen at once. A row of y depends on its own row of x alone, to the last bit: not on how
// many rows there are, nor where it stands among them. Many rows: tile_matmul.h, with the same bits.
// Legend: R rows, K inputs, N outputs. Neither torch nor Node; the callers share out N among threads.
#pragma once
#include <cstdint>

namespace archer::kernels {

// What becomes of the sums s_RN = x Wᵀ, each step rounded to bfloat16 as if it stood alone; what is null is left out.
//   out = residual + (s + bias), or, of two weights, out = silu(gate) * up with gate = s + bias and up = s' + up_bias
struct TileEpilogue {
  const uint16_t* bias_N = nullptr;
  const uint16_t* up_bias_N = nullptr;
  const uint16_t* residual_RN = nullptr;
  uint16_t* out_RN = nullptr;
  uint16_t *gate_RN = nullptr, *up_RN = nullptr;  // kept beside `out`
  float* wide_out_RN = nullptr;                   // s itself instead
  int64_t stride = 0;                             // elements from one row to the next, of all of them
};

struct TileLinear {
  const uint16_t* weight_NK;
  const uint16_t* up_weight_NK;  // or null
  int64_t outputs, inputs, rows;
  int64_t begin, end;            // outputs of this call; begin is a multiple of 32, end too or `outputs`
  const uint16_t* packed;        // of pack_hidden
  TileEpilogue to;
};

}  // namespace archer::kernels
