// Causal self-attention inside every sequence of a pack; grouped key/value heads; one autograd node.
// bfloat16 runs through our own tiles where the processor has them (kernels/tile_attention.h): the same bits as in decoding.
// Else, and for every backward, on libtorch's CPU flash kernel, which is dense: sequences of similar length are copied
// into right-padded buckets [n, L, heads, D] (rows of one sequence stay one block of memory) and back. Causality keeps
// real queries from seeing the padding, which is at the end, so no mask is needed.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <vector>

#include "core/job_control.h"
#include "core/packed.h"

namespace archer {

struct AttentionPlan : torch::CustomClassHolder {
  struct Row {
    int64_t offset;  // first token of the sequence in the pack
    int64_t length;
  };
  struct Bucket {
    int64_t length;  // the longest of its sequences
    std::vector<Row> rows;
  };
  std::vector<Bucket> buckets;

  // Longest first; a bucket is closed where its padded size would exceed 1.3 times its tokens.
  explicit AttentionPlan(const PackedSequences& sequences);
};

// q [T, heads * D], k and v [T, kv_heads * D] -> [T, heads * D]; scale 1 / sqrt(D). `control` (may be null) is polled on
// the way, as one layer of a long prompt can take seconds; where gradients are recorded it is not.
at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::intrusive_ptr<AttentionPlan>& plan, int64_t head_dim,
                            const JobControl* control = nullptr);

}  // namespace archer
