// Which rows of a pack attention works on. For libtorch's CPU flash attention, which is dense, sequences of similar length go into
// buckets: they are copied, right-padded, into [n, heads, L, D] and back. Causality keeps real queries from seeing the padding,
// which is at the end: no mask.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "core/packed.h"

namespace archer {

struct AttentionPlan {
  struct Row {
    int64_t offset;  // first token of the sequence in the pack
    int64_t length;
    int64_t prefix_offset, prefix;  // the tokens of its parent, which it sees too; 0, 0 without one
  };
  struct Bucket {
    int64_t length;  // the longest of its sequences
    std::vector<Row> rows;
  };
  // A parent and the sequences that continue it.
  struct Family {
    int64_t prefix_offset, prefix;
    std::vector<Row> children;  // one behind the other in the pack
    int64_t offset() const { return children.front().offset; }
    int64_t num_tokens() const { return children.back().offset + children.back().length - offset(); }
  };
  std::vector<Bucket> buckets;  // of all sequences, by their own lengths
  std::vector<Family> families;

  AttentionPlan() = default;
  // Longest first; a bucket is closed where its padded size would exceed 1.3 times its tokens.
  explicit AttentionPlan(const PackedSequences& sequences);
  std::vector<Row> rows() const;  // in the order of the buckets
};

// packed [T, heads * D] -> [n, heads, L, D], a transposed view of [n, L, heads, D]; padding is zero.
at::Tensor pad(const at::Tensor& packed, const AttentionPlan::Bucket& bucket, int64_t head_dim);

// The inverse: [n, heads, L, D] into the rows of `packed`, in its dtype.
void unpad(const at::Tensor& dense, const AttentionPlan::Bucket& bucket, const at::Tensor& packed);

// `count` tokens of packed [T, heads * D] as [1, heads, count, D], not copied.
at::Tensor view_tokens(const at::Tensor& packed, int64_t offset, int64_t count, int64_t head_dim);

}  // namespace archer
