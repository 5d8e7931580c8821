// Prefill attention as decoding does it, one query position after the other: a token's result has the same bits whether it was
// prefilled or decoded, and whatever stands beside its sequence. For BatchInvariantScope, where there are no tiles.
#pragma once
#include "model/packed_attention.h"

namespace archer {

// As packed_attention_into(), for no gradient.
void row_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const JobControl* control, const at::Tensor& out);

}  // namespace archer
