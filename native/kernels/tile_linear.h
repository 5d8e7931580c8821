// y = x Wᵀ (+ bias) in bfloat16 tiles, float32 sums: the model's projections without autograd, and its logits. The weight is read as
// it lies, so nothing is prepacked and an update of the weights is seen at once. A row of y depends on its own row of x alone, to
// the last bit: not on how many rows there are, nor where it stands among them.
// Legend: R rows, K inputs, N outputs. Neither torch nor Node; the callers share out N among threads.
#pragma once
#include <cstdint>

namespace archer::kernels {

struct TileLinear {
  const uint16_t* weight_NK;
  int64_t outputs, inputs, rows;
  int64_t begin, end;        // outputs of this call; begin is a multiple of 32, end too or `outputs`
  const uint16_t* packed;    // of pack_hidden
  const uint16_t* bias_N;    // or null
  uint16_t* out_RN;          // one of the two
  float* wide_out_RN;
};

}  // namespace archer::kernels
