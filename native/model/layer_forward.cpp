// One decoder layer, keeping what its backward reads:
//   y = norm(x);  q, k, v = y Wᵀ + b;  q, k = rope(qk_norm(q, k));  m = x + attention(q, k, v) Woᵀ + bo
//   z = norm(m);  out = m + (silu(z Wgᵀ + bg) * (z Wuᵀ + bu)) Wdᵀ + bd
// Every result is rounded to the compute dtype where Transformer::hidden_states() rounds it: the bits are the same.
#include "core/linear.h"
#include "model/packed_attention.h"
#include "model/training_pass.h"

namespace archer {

std::pair<at::Tensor, at::Tensor> TrainingPass::rotated(size_t index) {
  LayerBuffers& saved = buffers_->layers[index];
  if (!model_.config().qk_norm) return {saved.q, saved.k};
  const Transformer::Layer& layer = model_.layers()[index];
  const auto normed_and_rotated = [&](const at::Tensor& x, int64_t norm, const at::Tensor& rstd, const at::Tensor& out) {
    rms_norm_into(x, weight(norm), model_.config().rms_norm_eps, out, rstd);
    rotate_into(out, rotation_, out);
    return out;
  };
  return {normed_and_rotated(saved.q, layer.q_norm, saved.q_rstd, buffers_->rotated_q),
          normed_and_rotated(saved.k, layer.k_norm, saved.k_rstd, buffers_->rotated_k)};
}

void TrainingPass::layer_forward(size_t index, const JobControl* control, const at::Tensor& output_TH) {
  const Transformer::Layer& layer = model_.layers()[index];
  const ModelConfig& config = model_.config();
  TrainingBuffers& b = *buffers_;
  LayerBuffers& saved = b.layers[index];
  const double eps = config.rms_norm_eps;
  const auto projection = [&](int64_t weight, int64_t bias, const at::Tensor& out, const at::Tensor& residual = {}) {
    return model_.projection(weight, bias, out, residual);
  };

  rms_norm_into(saved.input_TH, weight(layer.input_norm), eps, b.normed_TH, saved.input_rstd_T);
  linear_products(b.normed_TH, {projection(layer.q, layer.q_bias, saved.q), projection(layer.k, layer.k_bias, saved.k),
                                projection(layer.v, layer.v_bias, saved.v)});
  if (!config.qk_norm) {
    rotate_into(saved.q, rotation_, saved.q);
    rotate_into(saved.k, rotation_, saved.k);
  }
  const auto [q, k] = rotated(index);
  packed_attention_into(q, k, saved.v, plan_, config.head_dim, control, saved.mixed, saved.logsumexp);
  linear_products(saved.mixed, {projection(layer.o, layer.o_bias, saved.middle_TH, saved.input_TH)});

  rms_norm_into(saved.middle_TH, weight(layer.post_norm), eps, b.normed_TH, saved.middle_rstd_T);
  gated_product_into(b.normed_TH, projection(layer.gate, layer.gate_bias, saved.gate_TI),
                     projection(layer.up, layer.up_bias, saved.up_TI), b.inner_TI);
  if (!output_TH.defined()) return;
  linear_products(b.inner_TI, {projection(layer.down, layer.down_bias, output_TH, saved.middle_TH)});
}

}  // namespace archer
