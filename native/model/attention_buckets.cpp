#include "model/attention_buckets.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <numeric>

namespace archer {

AttentionPlan::AttentionPlan(const PackedSequences& sequences) {
  const std::vector<int32_t>& offsets = sequences.offsets;
  std::vector<int64_t> order(sequences.num_sequences());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t i) -> int64_t { return offsets[i + 1] - offsets[i]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  int64_t tokens = 0;
  for (const int64_t i : order) {
    const int64_t rows = buckets.empty() ? 0 : static_cast<int64_t>(buckets.back().rows.size());
    if (rows == 0 || 10 * buckets.back().length * (rows + 1) > 13 * (tokens + length(i))) {
      buckets.push_back({length(i), {}});
      tokens = 0;
    }
    buckets.back().rows.push_back({offsets[i], length(i)});
    tokens += length(i);
  }
}

at::Tensor pad(const at::Tensor& packed, const AttentionPlan::Bucket& bucket, int64_t head_dim) {
  const int64_t n = static_cast<int64_t>(bucket.rows.size()), heads = packed.size(1) / head_dim;
  at::Tensor padded = at::empty({n, bucket.length, heads, head_dim}, packed.options());
  const size_t token = packed.size(1) * packed.element_size();
  const char* source = static_cast<const char*>(packed.const_data_ptr());
  char* target = static_cast<char*>(padded.mutable_data_ptr());
  at::parallel_for(0, n, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto [offset, length] = bucket.rows[i];
      char* row = target + i * bucket.length * token;
      std::memcpy(row, source + offset * token, length * token);
      std::memset(row + length * token, 0, (bucket.length - length) * token);
    }
  });
  return padded.transpose(1, 2);
}

void unpad(const at::Tensor& dense, const AttentionPlan::Bucket& bucket, const at::Tensor& packed) {
  const at::Tensor rows = dense.transpose(1, 2).to(packed.scalar_type()).contiguous();
  const size_t token = packed.size(1) * packed.element_size();
  const char* source = static_cast<const char*>(rows.const_data_ptr());
  char* target = static_cast<char*>(packed.mutable_data_ptr());
  at::parallel_for(0, static_cast<int64_t>(bucket.rows.size()), 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const auto [offset, length] = bucket.rows[i];
      std::memcpy(target + offset * token, source + i * bucket.length * token, length * token);
    }
  });
}

}  // namespace archer
