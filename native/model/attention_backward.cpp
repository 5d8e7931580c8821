// The backward of packed attention; see packed_attention.h.
#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>

#include <cmath>

#include "core/attention.h"
#include "model/gpu_ops.h"
#include "model/packed_attention.h"
#include "model/scalar_dispatch.h"

namespace archer {
namespace {

struct Operands {
  const at::Tensor &dout, &q, &k, &v, &out, &lse_TH;
  const at::Tensor &dq, &dk, &dv;
};

// Padded queries have gradient zero and see finite keys: they add nothing, whatever stands in their out and logsumexp.
void flash_backward(const Operands& x, const AttentionPlan& plan, int64_t head_dim, const JobControl* control) {
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    if (control) control->check();
    const auto padded = [&](const at::Tensor& packed) { return pad(packed, bucket, head_dim); };
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        padded(x.dout), padded(x.q), padded(x.k), padded(x.v), padded(x.out), pad(x.lse_TH, bucket, 1).squeeze(3), 0.0, true);
    unpad(dq, bucket, x.dq);
    unpad(dk, bucket, x.dk);
    unpad(dv, bucket, x.dv);
  }
}

// One item per sequence and key/value head: no sum runs over two threads. Sequences are taken from both ends of their order by
// length in turn, so that threads with as many items have as much to do.
void tiled_backward(const Operands& x, const AttentionPlan& plan, int64_t head_dim, const JobControl* control) {
  std::vector<AttentionPlan::Row> sequences;
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    sequences.insert(sequences.end(), bucket.rows.begin(), bucket.rows.end());
  }
  const int64_t heads = x.q.size(1) / head_dim, kv_heads = x.k.size(1) / head_dim, group = heads / kv_heads;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const uint16_t *q = data<uint16_t>(x.q), *k = data<uint16_t>(x.k), *v = data<uint16_t>(x.v);
  const uint16_t *out = data<uint16_t>(x.out), *dout = data<uint16_t>(x.dout);
  const float* lse = data<float>(x.lse_TH);
  float *dq = mutable_data<float>(x.dq), *dk = mutable_data<float>(x.dk);
  uint16_t* dv = mutable_data<uint16_t>(x.dv);
  const int64_t count = static_cast<int64_t>(sequences.size());
  at::parallel_for(0, count * kv_heads, 1, [&](int64_t first, int64_t past) {
    for (int64_t item = first; item < past; ++item) {
      if (control) control->check();
      const int64_t i = item / kv_heads;
      const auto [offset, length] = sequences[static_cast<size_t>(i % 2 ? count - 1 - i / 2 : i / 2)];
      const int64_t kv_head = item % kv_heads, head = offset * heads + kv_head * group;
      const int64_t at_query = head * head_dim, at_key = (offset * kv_heads + kv_head) * head_dim;
      tile_attention_backward({q + at_query, out + at_query, dout + at_query, k + at_key, v + at_key, lse + head, dq + at_query,
                               dk + at_key, dv + at_key, heads * head_dim, kv_heads * head_dim, heads, length, group, head_dim,
                               scale});
    }
  });
}

}  // namespace

AttentionCopies attention_copies(at::ScalarType dtype, int64_t q, int64_t kv) {
  if (attention_is_row_exact(dtype)) return {};
  // A bucket is padded to at most 1.3 times its tokens (attention_buckets.cpp). Beside the padded operands stand the results,
  // the last of them twice: padded, and in rows.
  const auto padded = [](int64_t elements) { return elements * 13 / 10; };
  return {padded(3 * q + kv), padded(5 * q + 2 * kv)};
}

void packed_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& out, const at::Tensor& lse_TH, const AttentionPlan& plan, int64_t head_dim,
                               const JobControl* control, const at::Tensor& wide_dq, const at::Tensor& wide_dk,
                               const at::Tensor& dv) {
  if (gpu_of(q)) return gpu_attention_backward(dout, q, k, v, out, lse_TH, plan, head_dim, wide_dq, wide_dk, dv);
  const Operands operands{dout, q, k, v, out, lse_TH, wide_dq, wide_dk, dv};
  if (attention_is_row_exact(q.scalar_type())) return tiled_backward(operands, plan, head_dim, control);
  flash_backward(operands, plan, head_dim, control);
}

}  // namespace archer
