#include "model/packed_attention.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>

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

// lse_TH: logsumexp of every query, or undefined where nobody asks. What continues a sequence attends to itself first, and then,
// all of a family at once, to what it continues; the two results are weighed by their sums of exponentials:
//   lse = log(e^lse_own + e^lse_prefix);  out = e^(lse_own - lse) out_own + e^(lse_prefix - lse) out_prefix
void flash_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const at::Tensor& out, at::Tensor lse_TH, const JobControl* control) {
  if (!lse_TH.defined() && !plan.families.empty()) {
    lse_TH = at::empty({q.size(0), q.size(1) / head_dim}, q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  }
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    if (control) control->check();
    const auto [ob, lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        pad(q, bucket, head_dim), pad(k, bucket, head_dim), pad(v, bucket, head_dim), 0.0, true);
    unpad(ob, bucket, out);
    if (lse_TH.defined()) unpad(lse.unsqueeze(3), bucket, lse_TH);
  }
  for (const AttentionPlan::Family& family : plan.families) {
    if (control) control->check();
    const auto of_children = [&](const at::Tensor& x, int64_t dim) { return view_tokens(x, family.offset(), family.num_tokens(), dim); };
    const auto of_prefix = [&](const at::Tensor& x) { return view_tokens(x, family.prefix_offset, family.prefix, head_dim); };
    const auto [prefix_out, prefix_lse] = at::_scaled_dot_product_flash_attention_for_cpu(
        of_children(q, head_dim), of_prefix(k), of_prefix(v), 0.0, false);
    const at::Tensor lse = of_children(lse_TH, 1), both = at::logaddexp(lse, prefix_lse.unsqueeze(3));
    of_children(out, head_dim).mul_((lse - both).exp_()).add_(prefix_out * (prefix_lse.unsqueeze(3) - both).exp_());
    lse.copy_(both);
  }
}

// The queries of one key/value head are shared out in stretches of 64 positions, the later the longer: taken from both ends in
// turn, so that threads with as many stretches have as much to do.
void tiled_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, const Shape& shape,
                   const at::Tensor& out, const at::Tensor& lse_TH, const JobControl* control) {
  struct Stretch {
    AttentionPlan::Row row;
    int64_t begin, end;  // positions
  };
  std::vector<Stretch> stretches;
  for (const AttentionPlan::Row& row : plan.rows()) {
    const int64_t length = row.prefix + row.length, first = row.prefix / kernels::kKeyBlock;
    const int64_t past = (length + kernels::kKeyBlock - 1) / kernels::kKeyBlock;
    for (int64_t i = 0; i < past - first; ++i) {
      const int64_t begin = (i % 2 ? past - 1 - i / 2 : first + i / 2) * kernels::kKeyBlock;
      stretches.push_back({row, std::max(begin, row.prefix), std::min(begin + kernels::kKeyBlock, length)});
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
      const auto& [row, begin, end] = stretches[item % count];
      const int64_t head = (row.offset + begin - row.prefix) * heads + kv_head * group;
      const int64_t key = (row.offset * kv_heads + kv_head) * head_dim, prefix = (row.prefix_offset * kv_heads + kv_head) * head_dim;
      kernels::TileAttention job{qp + head * head_dim, kp + key, vp + key, op + head * head_dim, lse ? lse + head : nullptr,
                                 heads * head_dim, kv_heads * head_dim, heads, group, head_dim, begin, end, scale};
      job.prefix = row.prefix;
      job.prefix_keys = kp + prefix;
      job.prefix_values = vp + prefix;
      tile_attention(job);
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
