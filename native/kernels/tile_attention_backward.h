// The gradient of tile_attention.h for one sequence, which may continue another one, and the G query heads that share a key/value head (FlashAttention-2's
// equations). From p_tj = exp(scale q_t . k_j - logsumexp_t), computed again, and delta_t = dout_t . out_t:
//   dv_j = sum_t p_tj dout_t;   ds_tj = scale p_tj (dout_t . v_j - delta_t);   dk_j = sum_t ds_tj q_t;   dq_t = sum_j ds_tj k_j
// p and ds are rounded to bfloat16 for their products; sums are float32. Blocks of 64 positions of queries and keys.
// Legend: D head_dim, G query heads per key/value head. Neither torch nor Node; one thread.
#pragma once
#include <cstdint>

namespace archer::kernels {

struct TileAttentionBackward {
  const uint16_t *query, *out, *dout;   // [length - prefix, G, D] from position `prefix` on
  const uint16_t *keys, *values;        // [length - prefix, D]
  const float* logsumexp;               // [length - prefix, G]
  float *dquery, *dkeys;                // as query, as keys
  uint16_t* dvalues;                    // as keys
  int64_t query_stride, key_stride, lse_stride;  // elements from one token to the next: of query, out, dout and dquery; of keys,
                                                 // values and their gradients; of logsumexp
  int64_t length, group, head_dim;
  float scale;
  // Of the first `prefix` positions, which belong to the sequence that this one continues: as keys; gradients are added.
  int64_t prefix = 0;
  const uint16_t *prefix_keys = nullptr, *prefix_values = nullptr;
  float *prefix_dkeys = nullptr, *prefix_dvalues = nullptr;
};

// Floats of scratch for a call, aligned to 64 bytes.
int64_t tile_attention_backward_scratch(int64_t length, int64_t group, int64_t head_dim);

}  // namespace archer::kernels
