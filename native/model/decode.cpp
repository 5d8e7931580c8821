// One token per sequence: generation's inner loop. Without autograd, and with as few dispatcher calls as there are matrix
// products: norms, rotations, cache writes and attention are our own kernels on raw pointers.
//   B sequences, K kv heads, D head_dim, G = heads / K queries per kv head
#include <ATen/Parallel.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "core/attention.h"
#include "kernels/attention_decode.h"
#include "model/ops.h"
#include "model/scalar_dispatch.h"
#include "model/transformer.h"

namespace archer {
namespace {

// states [B, K * D] -> position positions_B[i] of the sequence in pages_B[i]
void append(const at::Tensor& states, const std::vector<int32_t>& positions_B, const std::vector<Pages>& pages_B,
            at::Tensor& cached) {
  const size_t row = states.size(1) * states.element_size();
  const char* source = static_cast<const char*>(states.const_data_ptr());
  for (size_t i = 0; i < pages_B.size(); ++i) write_lines(cached, source + i * row, pages_B[i], positions_B[i], 1);
}

void attend(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const std::vector<int32_t>& positions_B,
            const std::vector<Pages>& pages_B, const at::Tensor& out) {
  const int64_t num_kv_heads = keys.size(1), head_dim = keys.size(3), page_stride = keys.stride(0);
  const int64_t group = q.size(1) / (num_kv_heads * head_dim), num_rows = static_cast<int64_t>(pages_B.size());
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  const auto head_offset = [&](int64_t item) { return item % num_kv_heads * kKvPage * head_dim; };  // in every page
  if (attention_is_row_exact(q.scalar_type())) {
    const uint16_t *qp = data<uint16_t>(q), *kp = data<uint16_t>(keys), *vp = data<uint16_t>(values);
    uint16_t* op = mutable_data<uint16_t>(out);
    at::parallel_for(0, num_rows * num_kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / num_kv_heads, head = head_offset(item), next = std::min(item + 1, end - 1);
        const int64_t query = item * group * head_dim, position = positions_B[row];
        const int64_t following = pages_B[next / num_kv_heads][0] * page_stride + head_offset(next) - head;
        tile_attention({qp + query, kp + head, vp + head, op + query, nullptr, q.size(1), head_dim, 0, group, head_dim,
                        position, position + 1, static_cast<float>(scale), pages_B[row].data(), page_stride, following});
      }
    });
    return;
  }
  dispatch_scalar(q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *qp = data<T>(q), *kp = data<T>(keys), *vp = data<T>(values);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, num_rows * num_kv_heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<kernels::Accumulator<T>> scratch(kernels::attention_decode_scratch(group, head_dim));
      for (int64_t item = begin; item < end; ++item) {
        const int64_t row = item / num_kv_heads, head = head_offset(item), query = item * group * head_dim;
        kernels::attention_decode<T>({qp + query, kp + head, vp + head, op + query, pages_B[row].data(), page_stride,
                                      group, head_dim, positions_B[row] + 1, scale},
                                     scratch.data());
      }
    });
  });
}

}  // namespace

at::Tensor Transformer::decode(const std::vector<int32_t>& ids_B, const std::vector<int32_t>& positions_B,
                               const std::vector<Pages>& pages_B, KvCache& cache, const JobControl* control) const {
  const int64_t batch = static_cast<int64_t>(ids_B.size());
  require(batch > 0 && positions_B.size() == ids_B.size() && pages_B.size() == ids_B.size(), kShape,
          "decode needs one token, position and page table per row");
  check_ids(ids_B);
  for (int64_t i = 0; i < batch; ++i) {
    require(positions_B[i] >= 0, kShape, "position " + std::to_string(positions_B[i]) + " is negative");
    cache.check(pages_B[i], positions_B[i] + 1);
  }
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> w = weights();
  const int64_t q_size = config_.num_heads * config_.head_dim, kv_size = config_.num_kv_heads * config_.head_dim;
  const auto buffer = [&](int64_t columns) { return at::empty({batch, columns}, at::TensorOptions().dtype(compute_dtype_)); };
  rope_.reserve(1 + *std::max_element(positions_B.begin(), positions_B.end()));
  at::Tensor ids = at::empty({batch}, at::kInt), positions = at::empty({batch}, at::kInt);
  std::copy(ids_B.begin(), ids_B.end(), ids.mutable_data_ptr<int32_t>());
  std::copy(positions_B.begin(), positions_B.end(), positions.mutable_data_ptr<int32_t>());
  const Rotation rotation{rope_.cosine(), rope_.sine(), positions};
  const double eps = config_.rms_norm_eps;

  const at::Tensor x = at::embedding(w[embedding_], ids), y = buffer(config_.hidden_size);
  const at::Tensor q = buffer(q_size), k = buffer(kv_size), v = buffer(kv_size), mixed = buffer(q_size);
  const at::Tensor inner = buffer(config_.intermediate_size);
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (control) control->check();
    const Layer& layer = layers_[i];
    rms_norm_into(x, w[layer.input_norm], eps, y, {});
    linear_products(y, {projection(layer.q, layer.q_bias, q), projection(layer.k, layer.k_bias, k),
                        projection(layer.v, layer.v_bias, v)});
    if (config_.qk_norm) {
      rms_norm_into(q, w[layer.q_norm], eps, q, {});
      rms_norm_into(k, w[layer.k_norm], eps, k, {});
    }
    rotate_into(q, rotation, q);
    rotate_into(k, rotation, k);
    append(k, positions_B, pages_B, cache.keys[i]);
    append(v, positions_B, pages_B, cache.values[i]);
    attend(q, cache.keys[i], cache.values[i], positions_B, pages_B, mixed);
    linear_products(mixed, {projection(layer.o, layer.o_bias, x, x)});
    rms_norm_into(x, w[layer.post_norm], eps, y, {});
    gated_product_into(y, projection(layer.gate, layer.gate_bias, {}), projection(layer.up, layer.up_bias, {}), inner);
    linear_products(inner, {projection(layer.down, layer.down_bias, x, x)});
  }
  return rms_norm(x, w[final_norm_], eps);
}

}  // namespace archer
