#include "model/packed_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

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

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

// packed [T, width] -> [n, heads, L, D], a transposed view of [n, L, heads, D]; padding is zero.
at::Tensor pad(const at::Tensor& packed, const AttentionPlan::Bucket& bucket, int64_t head_dim) {
  const int64_t n = static_cast<int64_t>(bucket.rows.size()), heads = packed.size(1) / head_dim;
  at::Tensor padded = at::empty({n, bucket.length, heads, head_dim}, packed.options().requires_grad(false));
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

// The inverse: [n, heads, L, D] into the rows of `packed`.
void unpad(const at::Tensor& dense, const AttentionPlan::Bucket& bucket, at::Tensor& packed) {
  const at::Tensor rows = dense.transpose(1, 2).contiguous();
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

struct PackedAttention : Function<PackedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::IValue& plan_value, int64_t head_dim) {
    const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(plan_value.toCapsule());
    at::Tensor out = at::empty_like(q);
    variable_list saved;
    for (const AttentionPlan::Bucket& bucket : plan->buckets) {
      const at::Tensor qb = pad(q, bucket, head_dim), kb = pad(k, bucket, head_dim), vb = pad(v, bucket, head_dim);
      auto [ob, logsumexp] = at::_scaled_dot_product_flash_attention_for_cpu(qb, kb, vb, 0.0, true);
      unpad(ob, bucket, out);
      if (context) saved.insert(saved.end(), {qb, kb, vb, ob, logsumexp});
    }
    if (context) {
      context->save_for_backward(saved);
      context->saved_data["plan"] = plan_value;
    }
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(context->saved_data["plan"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dout = grads[0].contiguous();
    const int64_t head_dim = saved[0].size(3), kv_width = saved[1].size(1) * head_dim;
    at::Tensor dq = at::empty_like(dout), dk = at::empty({dout.size(0), kv_width}, dout.options());
    at::Tensor dv = at::empty_like(dk);
    for (size_t i = 0; i < plan->buckets.size(); ++i) {
      const AttentionPlan::Bucket& bucket = plan->buckets[i];
      const at::Tensor* s = saved.data() + 5 * i;
      auto [dqb, dkb, dvb] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          pad(dout, bucket, head_dim), s[0], s[1], s[2], s[3], s[4], 0.0, true);
      unpad(dqb, bucket, dq);
      unpad(dkb, bucket, dk);
      unpad(dvb, bucket, dv);
    }
    return {dq, dk, dv, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::intrusive_ptr<AttentionPlan>& plan, int64_t head_dim) {
  const c10::IValue plan_value = c10::IValue::make_capsule(plan);
  if (at::GradMode::is_enabled()) return PackedAttention::apply(q, k, v, plan_value, head_dim);
  return PackedAttention::forward(nullptr, q, k, v, plan_value, head_dim);
}

}  // namespace archer
