#include "model/packed_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>

#include <algorithm>
#include <cmath>

#include "core/attention.h"
#include "core/batch_invariance.h"
#include "model/gpu_ops.h"
#include "model/row_attention.h"
#include "model/scalar_dispatch.h"

namespace archer {
namespace {

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

// lse_TH: logsumexp of every query, or undefined where nobody asks.
void flash_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const at::Tensor& out, const at::Tensor& lse_TH, const JobControl* control) {
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    if (control) control->check();
    const auto [ob, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        pad(q, bucket, head_dim), pad(k, bucket, head_dim), pad(v, bucket, head_dim), 0.0, true);
    unpad(ob, bucket, out);
    if (lse_TH.defined()) unpad(lse.unsqueeze(3), bucket, lse_TH);
  }
}

// The queries of one key/value head are shared out in stretches of 64 positions, the later the longer: taken from both ends in
// turn, so that threads with as many stretches have as much to do.
void tiled_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, const Shape& shape,
                   const at::Tensor& out, const at::Tensor& lse_TH, const JobControl* control) {
  struct Stretch {
    int64_t offset, begin, end;  // first token of the sequence; positions in it
  };
  std::vector<Stretch> stretches;
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    for (const auto& [offset, length] : bucket.rows) {
      const int64_t count = (length + kernels::kKeyBlock - 1) / kernels::kKeyBlock;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t begin = (i % 2 ? count - 1 - i / 2 : i / 2) * kernels::kKeyBlock;
        stretches.push_back({offset, begin, std::min(begin + kernels::kKeyBlock, length)});
      }
    }
  }
  const int64_t heads = shape.heads, kv_heads = shape.kv_heads, head_dim = shape.head_dim;
  const int64_t group = heads / kv_heads, count = static_cast<int64_t>(stretches.size());
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const uint16_t *qp = data<uint16_t>(q), *kp = data<uint16_t>(k), *vp = data<uint16_t>(v);
  uint16_t* op = mutable_data<uint16_t>(out);
  float* lse = lse_TH.defined() ? mutable_data<float>(lse_TH) : nullptr;
  at::parallel_for(0, kv_heads * count, 1, [&](int64_t first, int64_t past) {
    for (int64_t item = first; item < past; ++item) {
      if (control) control->check();
      const int64_t kv_head = item / count;
      const auto [offset, begin, end] = stretches[item % count];
      const int64_t head = (offset + begin) * heads + kv_head * group, key = (offset * kv_heads + kv_head) * head_dim;
      tile_attention({qp + head * head_dim, kp + key, vp + key, op + head * head_dim, lse ? lse + head : nullptr,
                      heads * head_dim, kv_heads * head_dim, heads, group, head_dim, begin, end, scale});
    }
  });
}

}  // namespace

void packed_attention_into(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan,
                           int64_t head_dim, const JobControl* control, const at::Tensor& out, const at::Tensor& lse_TH) {
  if (gpu_of(q)) {
    gpu_attention(q, k, v, plan, head_dim, out, lse_TH);
  } else if (attention_is_row_exact(q.scalar_type())) {
    tiled_forward(q, k, v, plan, {q.size(1) / head_dim, k.size(1) / head_dim, head_dim}, out, lse_TH, control);
  } else if (BatchInvariantScope::active() && !lse_TH.defined()) {
    row_attention(q, k, v, plan, head_dim, control, out);
  } else {
    flash_forward(q, k, v, plan, head_dim, out, lse_TH, control);
  }
}

}  // namespace archer
