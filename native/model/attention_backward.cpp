// The backward of packed attention; see packed_attention.h.
#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
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
// Both attentions of flash_forward() get the merged out and logsumexp, from which their weights come out as merged.
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
  for (const AttentionPlan::Family& family : plan.families) {
    if (control) control->check();
    const auto of_children = [&](const at::Tensor& t, int64_t dim) { return view_tokens(t, family.offset(), family.num_tokens(), dim); };
    const auto of_prefix = [&](const at::Tensor& t) { return view_tokens(t, family.prefix_offset, family.prefix, head_dim); };
    const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        of_children(x.dout, head_dim), of_children(x.q, head_dim), of_prefix(x.k), of_prefix(x.v), of_children(x.out, head_dim),
        of_children(x.lse_TH, 1).squeeze(3), 0.0, false);
    of_children(x.dq, head_dim).add_(dq);
    of_prefix(x.dk).add_(dk);
    of_prefix(x.dv).add_(dv);
  }
}

// Sequences that one thread works off in their order. With a parent, what they add to the gradients of its keys and values is summed
// in rows of their own, [prefix, kv_heads * D] from row `sums` on.
struct Run {
  std::vector<AttentionPlan::Row> rows;
  const AttentionPlan::Family* family = nullptr;
  int64_t sums = 0;
  // Pairs of a query and a key that it sees, twice.
  int64_t work() const {
    int64_t pairs = 0;
    for (const AttentionPlan::Row& row : rows) pairs += row.length * (2 * row.prefix + row.length);
    return pairs;
  }
};

// Of a family as many sequences as have the parent's tokens: the sums take no more rows than the pack. Others go alone.
std::vector<Run> runs_of(const AttentionPlan& plan) {
  std::vector<Run> runs;
  int64_t sums = 0;
  for (const AttentionPlan::Family& family : plan.families) {
    int64_t tokens = family.prefix;
    for (const AttentionPlan::Row& row : family.children) {
      if (tokens >= family.prefix) {
        runs.push_back({{}, &family, sums});
        sums += family.prefix;
        tokens = 0;
      }
      runs.back().rows.push_back(row);
      tokens += row.length;
    }
  }
  for (const AttentionPlan::Row& row : plan.rows()) {
    if (row.prefix == 0) runs.push_back({{row}});
  }
  return runs;
}

// One item per run and key/value head: no sum runs over two threads. Runs are taken from both ends of their order by work in turn,
// so that threads with as many items have as much to do.
void tiled_backward(const Operands& x, const AttentionPlan& plan, int64_t head_dim, const JobControl* control) {
  const std::vector<Run> runs = runs_of(plan);
  std::vector<const Run*> order;
  int64_t num_sums = 0;
  for (const Run& run : runs) {
    order.push_back(&run);
    if (run.family) num_sums += run.family->prefix;
  }
  std::stable_sort(order.begin(), order.end(), [](const Run* a, const Run* b) { return a->work() > b->work(); });
  const at::Tensor key_sums = at::zeros({num_sums, x.k.size(1)}, x.dk.options()), value_sums = at::zeros_like(key_sums);
  const int64_t heads = x.q.size(1) / head_dim, kv_heads = x.k.size(1) / head_dim, group = heads / kv_heads;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head_dim)));
  const uint16_t *q = data<uint16_t>(x.q), *k = data<uint16_t>(x.k), *v = data<uint16_t>(x.v);
  const uint16_t *out = data<uint16_t>(x.out), *dout = data<uint16_t>(x.dout);
  const float* lse = data<float>(x.lse_TH);
  float *dq = mutable_data<float>(x.dq), *dk = mutable_data<float>(x.dk);
  float *dk_sums = mutable_data<float>(key_sums), *dv_sums = mutable_data<float>(value_sums);
  uint16_t* dv = mutable_data<uint16_t>(x.dv);
  const int64_t count = static_cast<int64_t>(order.size());
  at::parallel_for(0, count * kv_heads, 1, [&](int64_t first, int64_t past) {
    for (int64_t item = first; item < past; ++item) {
      const int64_t i = item / kv_heads, kv_head = item % kv_heads;
      const Run& run = *order[static_cast<size_t>(i % 2 ? count - 1 - i / 2 : i / 2)];
      const auto at_key = [&](int64_t token) { return (token * kv_heads + kv_head) * head_dim; };
      for (const AttentionPlan::Row& row : run.rows) {
        if (control) control->check();
        const int64_t head = row.offset * heads + kv_head * group, query = head * head_dim, key = at_key(row.offset);
        kernels::TileAttentionBackward job{q + query, out + query, dout + query, k + key, v + key, lse + head, dq + query,
                                           dk + key, dv + key, heads * head_dim, kv_heads * head_dim, heads,
                                           row.prefix + row.length, group, head_dim, scale};
        job.prefix = row.prefix;
        job.prefix_keys = k + at_key(row.prefix_offset);
        job.prefix_values = v + at_key(row.prefix_offset);
        job.prefix_dkeys = dk_sums + at_key(run.sums);
        job.prefix_dvalues = dv_sums + at_key(run.sums);
        tile_attention_backward(job);
      }
    }
  });
  for (const AttentionPlan::Family& family : plan.families) {
    const auto of_prefix = [&](const at::Tensor& gradient) { return gradient.narrow(0, family.prefix_offset, family.prefix); };
    const at::Tensor wide_dv = of_prefix(x.dv).to(x.dk.scalar_type());
    for (const Run& run : runs) {
      if (run.family != &family) continue;
      of_prefix(x.dk).add_(key_sums.narrow(0, run.sums, family.prefix));
      wide_dv.add_(value_sums.narrow(0, run.sums, family.prefix));
    }
    of_prefix(x.dv).copy_(wide_dv);
  }
}

}  // namespace

AttentionCopies attention_copies(at::ScalarType dtype, int64_t q, int64_t kv) {
  // Sums for shared keys and values, in float32, take at most the rows of the pack.
  if (attention_is_row_exact(dtype)) return {0, 2 * kv};
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
