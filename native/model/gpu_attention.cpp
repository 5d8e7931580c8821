// Packed attention on a GPU; see gpu_ops.h. q, k and v are libtorch's [T, heads, D], its logsumexp is [heads, T].
#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "model/gpu_ops.h"

namespace archer {
namespace {

struct Lengths {
  at::Tensor offsets;  // int32, [N + 1]
  int64_t longest;
};

Lengths lengths_of(const AttentionPlan& plan, at::Device device) {
  std::vector<int32_t> offsets;
  int64_t tokens = 0, longest = 0;
  for (const AttentionPlan::Bucket& bucket : plan.buckets) {
    for (const AttentionPlan::Row& row : bucket.rows) {
      offsets.push_back(static_cast<int32_t>(row.offset));
      tokens += row.length;
      longest = std::max(longest, row.length);
    }
  }
  std::ranges::sort(offsets);
  offsets.push_back(static_cast<int32_t>(tokens));
  return {upload(device, offsets).view(at::kInt), longest};
}

at::Tensor by_heads(const at::Tensor& packed, int64_t head_dim) { return packed.view({packed.size(0), -1, head_dim}); }
at::Tensor as_libtorch(const at::Tensor& lse_TH) { return lse_TH.view({lse_TH.size(1), lse_TH.size(0)}); }

// Backwards, flash attention adds up dq in the order in which blocks come by unless it is told otherwise.
class Deterministic {
 public:
  Deterministic() {
    context().setDeterministicAlgorithms(true, false);
    context().setDeterministicFillUninitializedMemory(false);
  }
  ~Deterministic() {
    context().setDeterministicAlgorithms(was_, warned_);
    context().setDeterministicFillUninitializedMemory(filled_);
  }
  Deterministic(const Deterministic&) = delete;
  Deterministic& operator=(const Deterministic&) = delete;

 private:
  static at::Context& context() { return at::globalContext(); }
  bool was_ = context().deterministicAlgorithms(), warned_ = context().deterministicAlgorithmsWarnOnly();
  bool filled_ = context().deterministicFillUninitializedMemory();
};

}  // namespace

void gpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const at::Tensor& out, const at::Tensor& lse_TH) {
  const auto [offsets, longest] = lengths_of(plan, q.device());
  const auto result = at::_flash_attention_forward(by_heads(q, head_dim), by_heads(k, head_dim), by_heads(v, head_dim), offsets, offsets,
                                                   longest, longest, 0.0, true, false);
  out.view({out.size(0), -1, head_dim}).copy_(std::get<0>(result));
  if (lse_TH.defined()) as_libtorch(lse_TH).copy_(std::get<1>(result));
}

void gpu_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& out, const at::Tensor& lse_TH, const AttentionPlan& plan, int64_t head_dim,
                            const at::Tensor& wide_dq, const at::Tensor& wide_dk, const at::Tensor& dv) {
  const auto [offsets, longest] = lengths_of(plan, q.device());
  // Of the random numbers of a dropout, which is 0: never read.
  const at::Tensor unused = at::empty({2}, at::TensorOptions(at::kUInt64).device(q.device()));
  const Deterministic in_order;
  const auto [gq, gk, gv] = at::_flash_attention_backward(
      by_heads(dout, head_dim), by_heads(q, head_dim), by_heads(k, head_dim), by_heads(v, head_dim), by_heads(out, head_dim),
      as_libtorch(lse_TH), offsets, offsets, longest, longest, 0.0, true, unused, unused);
  by_heads(wide_dq, head_dim).copy_(gq);
  by_heads(wide_dk, head_dim).copy_(gk);
  by_heads(dv, head_dim).copy_(gv);
}

}  // namespace archer
