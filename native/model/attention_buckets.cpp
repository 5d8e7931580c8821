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
  const auto length = [&](int64_t i) { return sequences.length(i); };
  const auto row = [&](int64_t i) -> Row {
    const int64_t parent = sequences.parent(i);
    return {offsets[i], length(i), parent < 0 ? 0 : offsets[parent], sequences.first_position(i)};
  };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  int64_t tokens = 0;
  for (const int64_t i : order) {
    const int64_t rows = buckets.empty() ? 0 : static_cast<int64_t>(buckets.back().rows.size());
    if (rows == 0 || 10 * buckets.back().length * (rows + 1) > 13 * (tokens + length(i))) {
      buckets.push_back({length(i), {}});
      tokens = 0;
    }
    buckets.back().rows.push_back(row(i));
    tokens += length(i);
  }
  for (int64_t i = 0; i < sequences.num_sequences(); ++i) {
    const int64_t parent = sequences.parent(i);
    if (parent < 0) continue;
    if (sequences.parent(i - 1) != parent) families.push_back({offsets[parent], length(parent), {}});
    families.back().children.push_back(row(i));
  }
}

std::vector<AttentionPlan::Row> AttentionPlan::rows() const {
  std::vector<Row> all;
  for (const Bucket& bucket : buckets) all.insert(all.end(), bucket.rows.begin(), bucket.rows.end());
  return all;
}

at::Tensor pad(const at::Tensor& packed, const AttentionPlan::Bucket& bucket, int64_t head_dim) {
  const int64_t n = static_cast<int64_t>(bucket.rows.size()), heads = packed.size(1) / head_dim;
  at::Tensor padded = at::empty({n, bucket.length, heads, head_dim}, packed.options());
  const size_t token = packed.size(1) * packed.element_size();
  const char* source = static_cast<const char*>(packed.const_data_ptr());
  char* target = static_cast<char*>(padded.mutable_data_ptr());
  at::parallel_for(0, n, 8, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t offset = bucket.rows[i].offset, length = bucket.rows[i].length;
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
      const int64_t offset = bucket.rows[i].offset, length = bucket.rows[i].length;
      std::memcpy(target + offset * token, source + i * bucket.length * token, length * token);
    }
  });
}

at::Tensor view_tokens(const at::Tensor& packed, int64_t offset, int64_t count, int64_t head_dim) {
  return packed.narrow(0, offset, count).view({1, count, packed.size(1) / head_dim, head_dim}).transpose(1, 2);
}

}  // namespace archer
