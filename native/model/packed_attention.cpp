#include "model/packed_attention.h"

#include <ATen/Parallel.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_for_cpu_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "core/attention.h"
#include "core/batch_invariance.h"
#include "model/row_attention.h"
#include "model/scalar_dispatch.h"

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

// packed [T, heads * D] -> [n, heads, L, D], a transposed view of [n, L, heads, D]; padding is zero.
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

struct Shape {
  int64_t heads, kv_heads, head_dim;
};

// lse_TH: logsumexp of every query, or undefined where nobody asks.
void flash_forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   at::Tensor& out, at::Tensor& lse_TH, const JobControl* control) {
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
                   at::Tensor& out, at::Tensor& lse_TH, const JobControl* control) {
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

struct PackedAttention : Function<PackedAttention> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::IValue& plan_value, int64_t head_dim) {
    return compute(context, q, k, v, plan_value, head_dim, nullptr);
  }

  static at::Tensor compute(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::IValue& plan_value, int64_t head_dim, const JobControl* control) {
    const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(plan_value.toCapsule());
    const Shape shape{q.size(1) / head_dim, k.size(1) / head_dim, head_dim};
    at::Tensor out = at::empty_like(q), lse_TH;
    if (context) {
      const at::ScalarType dtype = q.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
      lse_TH = at::empty({q.size(0), shape.heads}, q.options().dtype(dtype).requires_grad(false));
    }
    if (attention_is_row_exact(q.scalar_type())) {
      tiled_forward(q, k, v, *plan, shape, out, lse_TH, control);
    } else {
      flash_forward(q, k, v, *plan, head_dim, out, lse_TH, control);
    }
    if (context) {
      context->save_for_backward({q, k, v, out, lse_TH});
      context->saved_data["plan"] = plan_value;
      context->saved_data["head_dim"] = head_dim;
    }
    return out;
  }

  // Padded queries have gradient zero and see finite keys: they add nothing, whatever stands in their out and logsumexp.
  static variable_list backward(AutogradContext* context, variable_list grads) {
    const auto plan = c10::static_intrusive_pointer_cast<AttentionPlan>(context->saved_data["plan"].toCapsule());
    const int64_t head_dim = context->saved_data["head_dim"].toInt();
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dout = grads[0].contiguous();
    at::Tensor dq = at::empty_like(dout), dk = at::empty(saved[1].sizes(), dout.options()), dv = at::empty_like(dk);
    for (const AttentionPlan::Bucket& bucket : plan->buckets) {
      const auto padded = [&](const at::Tensor& packed) { return pad(packed, bucket, head_dim); };
      const auto [dqb, dkb, dvb] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
          padded(dout), padded(saved[0]), padded(saved[1]), padded(saved[2]), padded(saved[3]),
          pad(saved[4], bucket, 1).squeeze(3), 0.0, true);
      unpad(dqb, bucket, dq);
      unpad(dkb, bucket, dk);
      unpad(dvb, bucket, dv);
    }
    return {dq, dk, dv, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor packed_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const c10::intrusive_ptr<AttentionPlan>& plan, int64_t head_dim,
                            const JobControl* control) {
  if (BatchInvariantScope::active() && !attention_is_row_exact(q.scalar_type())) {
    return row_attention(q, k, v, *plan, head_dim, control);
  }
  const c10::IValue plan_value = c10::IValue::make_capsule(plan);
  if (at::GradMode::is_enabled()) return PackedAttention::apply(q, k, v, plan_value, head_dim);
  return PackedAttention::compute(nullptr, q, k, v, plan_value, head_dim, control);
}

}  // namespace archer
