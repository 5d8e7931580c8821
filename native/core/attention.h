// Attention through bfloat16 tiles (kernels/tile_attention.h) for callers that share out the work among threads.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/tile_attention.h"
#include "kernels/tile_attention_backward.h"

namespace archer {

// Whether tile_attention() serves this dtype: a query's result then is the same in decoding, prefill and training, bit for bit.
bool attention_is_row_exact(at::ScalarType dtype);

// Run one job on the calling thread, with scratch that the thread keeps.
void tile_attention(const kernels::TileAttention& job);
void tile_attention_backward(const kernels::TileAttentionBackward& job);

}  // namespace archer
