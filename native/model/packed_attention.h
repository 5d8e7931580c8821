// Causal self-attention inside every sequence of a pack, and from what continues a sequence to that one; grouped key/value heads.
// bfloat16 runs through our own tiles where the processor has them (kernels/tile_attention.h): the same bits as in decoding. Else on
// libtorch's CPU flash kernel.
#pragma once
#include <ATen/core/Tensor.h>

#include "core/job_control.h"
#include "model/attention_buckets.h"

namespace archer {

// q [T, heads * D], k and v [T, kv_heads * D] -> out [T, heads * D]; scale 1 / sqrt(D). `control` (may be null) is polled on
// the way, as one layer of a long prompt can take seconds. lse_TH [T, heads]: for a backward the natural logsumexp of every query,
// float32 (float64 for float64); undefined where nobody asks.
void packed_attention_into(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
                           int64_t head_dim, const JobControl* control, const at::Tensor& out, const at::Tensor& lse_TH);

// Gradients of q and k in the dtype of lse_TH, of v in v's, from that of `out` and what the forward gave.
void packed_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& out, const at::Tensor& lse_TH, const AttentionPlan& plan, int64_t head_dim,
                               const JobControl* control, const at::Tensor& wide_dq, const at::Tensor& wide_dk,
                               const at::Tensor& dv);

// Elements per token, of the compute dtype, in what attention holds beside its operands and results.
// q, kv: elements per token of the queries, and of the keys and values together.
struct AttentionCopies {
  int64_t forward = 0, backward = 0;
};
AttentionCopies attention_copies(at::ScalarType dtype, int64_t q, int64_t kv);

}  // namespace archer
