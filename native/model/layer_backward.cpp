// The gradient of layer_forward.cpp, from the last line to the first. With g the gradient of the residual stream, kept in float32:
//   ds = g Wd;  dgate, dup = swiglu'(ds);  g += norm'(dgate Wg + dup Wu)
//   da = g Wo;  dq, dk, dv = attention'(da), rotated back;  g += norm'(dq Wq + dk Wk + dv Wv)
// and every weight's gradient is dyᵀ x of its projection. Operands of products are rounded to the compute dtype.
// Under adapters nothing else has a gradient (core/low_rank.h), and the products of the frozen weights' gradients are not formed.
#include "core/linear_gradients.h"
#include "model/packed_attention.h"
#include "model/row_gradients.h"
#include "model/training_pass.h"

namespace archer {

at::Tensor TrainingPass::gradient(const std::vector<at::Tensor>& grads, int64_t parameter) const {
  return model_.adapters().empty() ? grads[static_cast<size_t>(parameter)] : at::Tensor();
}

void TrainingPass::input_gradient(const at::Tensor& dy, int64_t weight_index, bool add, const at::Tensor& dx) const {
  linear_grad_input(dy, weight(weight_index), add, dx);
  if (const LowRank adapter = model_.adapter(weight_index); adapter.defined()) low_rank_grad_input(dy, adapter, dx);
}

void TrainingPass::weight_gradients(const at::Tensor& dy, const at::Tensor& x, int64_t weight_index, int64_t bias_index,
                                    std::vector<at::Tensor>& grads) const {
  if (model_.adapters().empty()) {
    linear_grad_weight(dy, x, gradient(grads, weight_index));
    if (bias_index >= 0) linear_grad_bias(dy, gradient(grads, bias_index));
  } else if (const int64_t index = model_.adapter_index(weight_index); index >= 0) {
    const auto a = static_cast<size_t>(index);
    low_rank_grad_weights(dy, x, model_.adapter(weight_index), grads[a], grads[a + 1]);
  }
}

void TrainingPass::layer_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads) {
  const Transformer::Layer& layer = model_.layers()[index];
  TrainingBuffers& b = *buffers_;
  LayerBuffers& saved = b.layers[index];

  input_gradient(b.grad_TH, layer.down, false, b.grad_inner_TI);
  swiglu_backward(saved.gate_TI, saved.up_TI, b.grad_inner_TI, b.inner_TI);
  const at::Tensor &grad_gate = saved.gate_TI, &grad_up = saved.up_TI;
  weight_gradients(b.grad_TH, b.inner_TI, layer.down, layer.down_bias, grads);
  input_gradient(grad_gate, layer.gate, false, b.wide_grad_normed_TH);
  input_gradient(grad_up, layer.up, true, b.wide_grad_normed_TH);
  rms_norm_into(saved.middle_TH, weight(layer.post_norm), model_.config().rms_norm_eps, b.normed_TH, {});
  weight_gradients(grad_gate, b.normed_TH, layer.gate, layer.gate_bias, grads);
  weight_gradients(grad_up, b.normed_TH, layer.up, layer.up_bias, grads);
  rms_norm_backward(saved.middle_TH, weight(layer.post_norm), saved.middle_rstd_T, b.wide_grad_normed_TH, b.wide_grad_TH,
                    b.grad_TH, gradient(grads, layer.post_norm));

  attention_backward(index, control, grads);
  input_gradient(b.grad_q, layer.q, false, b.wide_grad_normed_TH);
  input_gradient(b.grad_k, layer.k, true, b.wide_grad_normed_TH);
  input_gradient(b.grad_v, layer.v, true, b.wide_grad_normed_TH);
  rms_norm_into(saved.input_TH, weight(layer.input_norm), model_.config().rms_norm_eps, b.normed_TH, {});
  weight_gradients(b.grad_q, b.normed_TH, layer.q, layer.q_bias, grads);
  weight_gradients(b.grad_k, b.normed_TH, layer.k, layer.k_bias, grads);
  weight_gradients(b.grad_v, b.normed_TH, layer.v, layer.v_bias, grads);
  rms_norm_backward(saved.input_TH, weight(layer.input_norm), saved.input_rstd_T, b.wide_grad_normed_TH, b.wide_grad_TH,
                    b.grad_TH, gradient(grads, layer.input_norm));
}

void TrainingPass::attention_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads) {
  const Transformer::Layer& layer = model_.layers()[index];
  TrainingBuffers& b = *buffers_;
  LayerBuffers& saved = b.layers[index];

  input_gradient(b.grad_TH, layer.o, false, b.grad_mixed);
  weight_gradients(b.grad_TH, saved.mixed, layer.o, layer.o_bias, grads);
  const auto [q, k] = rotated(index);
  packed_attention_backward(b.grad_mixed, q, k, saved.v, saved.mixed, saved.logsumexp, plan_, model_.config().head_dim,
                            control, b.wide_grad_q, b.wide_grad_k, b.grad_v);
  rotate_backward(b.wide_grad_q, rotation_, b.grad_q);
  rotate_backward(b.wide_grad_k, rotation_, b.grad_k);
  if (model_.config().qk_norm) {
    rms_norm_backward(saved.q, weight(layer.q_norm), saved.q_rstd, b.wide_grad_q, {}, b.grad_q,
                      gradient(grads, layer.q_norm));
    rms_norm_backward(saved.k, weight(layer.k_norm), saved.k_rstd, b.wide_grad_k, {}, b.grad_k,
                      gradient(grads, layer.k_norm));
  }
}

}  // namespace archer
