// Sequences of a pack by similar length, for libtorch's CPU flash attention, which is dense: those of a bucket are copied, right-
// padded, into [n, heads, L, D] and back. Causality keeps real queries from seeing the padding, which is at the end: no mask.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "core/packed.h"

namespace archer {

struct AttentionPlan {
  struct Row {
    int64_t offset;  // first token of the sequence in the pack
    int64_t length;
  };
  struct Bucket {
    int64_t length;  // the longest of its sequences
    std::vector<Row> rows;
  };
  std::vector<Bucket> buckets;

  AttentionPlan() = default;
  // Longest first; a bucket is closed where its padded size would exceed 1.3 times its tokens.
  explicit AttentionPlan(const PackedSequences& sequences);
};

// packed [T, heads * D] -> [n, heads, L, D], a transposed view of [n, L, heads, D]; padding is zero.
at::Tensor pad(const at::Tensor& packed, const AttentionPlan::Bucket& bucket, int64_t head_dim);

// The inverse: [n, heads, L, D] into the rows of `packed`, in its dtype.
void unpad(const at::Tensor& dense, const AttentionPlan::Bucket& bucket, const at::Tensor& packed);

}  // namespace archer
