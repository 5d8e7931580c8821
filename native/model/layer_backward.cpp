// The gradient of layer_forward.cpp, from the last line to the first. With g the gradient of the residual stream, kept in float32:
//   ds = g Wd;  dgate, dup = swiglu'(ds);  g += norm'(dgate Wg + dup Wu)
//   da = g Wo;  dq, dk, dv = attention'(da), rotated back;  g += norm'(dq Wq + dk Wk + dv Wv)
// and every weight's gradient is dyᵀ x of its projection. Operands of products are rounded to the compute dtype.
#include "core/linear_gradients.h"
#include "model/packed_attention.h"
#include "model/row_gradients.h"
#include "model/training_pass.h"

namespace archer {

void TrainingPass::project_backward(const at::Tensor& dy, const at::Tensor& x, int64_t weight_index, int64_t bias_index,
                                    std::vector<at::Tensor>& grads) const {
  linear_grad_weight(dy, x, grads[static_cast<size_t>(weight_index)]);
  if (bias_index >= 0) linear_grad_bias(dy, grads[static_cast<size_t>(bias_index)]);
}

void TrainingPass::layer_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads) {
  const Transformer::Layer& layer = model_.layers()[index];
  TrainingBuffers& b = *buffers_;
  LayerBuffers& saved = b.layers[index];

  linear_grad_input(b.grad_TH, weight(layer.down), false, b.grad_inner_TI);
  swiglu_backward(saved.gate_TI, saved.up_TI, b.grad_inner_TI, b.inner_TI);
  const at::Tensor &grad_gate = saved.gate_TI, &grad_up = saved.up_TI;
  project_backward(b.grad_TH, b.inner_TI, layer.down, layer.down_bias, grads);
  linear_grad_input(grad_gate, weight(layer.gate), false, b.wide_grad_normed_TH);
  linear_grad_input(grad_up, weight(layer.up), true, b.wide_grad_normed_TH);
  rms_norm_into(saved.middle_TH, weight(layer.post_norm), model_.config().rms_norm_eps, b.normed_TH, {});
  project_backward(grad_gate, b.normed_TH, layer.gate, layer.gate_bias, grads);
  project_backward(grad_up, b.normed_TH, layer.up, layer.up_bias, grads);
  rms_norm_backward(saved.middle_TH, weight(layer.post_norm), saved.middle_rstd_T, b.wide_grad_normed_TH, b.wide_grad_TH,
                    b.grad_TH, grads[static_cast<size_t>(layer.post_norm)]);

  attention_backward(index, control, grads);
  linear_grad_input(b.grad_q, weight(layer.q), false, b.wide_grad_normed_TH);
  linear_grad_input(b.grad_k, weight(layer.k), true, b.wide_grad_normed_TH);
  linear_grad_input(b.grad_v, weight(layer.v), true, b.wide_grad_normed_TH);
  rms_norm_into(saved.input_TH, weight(layer.input_norm), model_.config().rms_norm_eps, b.normed_TH, {});
  project_backward(b.grad_q, b.normed_TH, layer.q, layer.q_bias, grads);
  project_backward(b.grad_k, b.normed_TH, layer.k, layer.k_bias, grads);
  project_backward(b.grad_v, b.normed_TH, layer.v, layer.v_bias, grads);
  rms_norm_backward(saved.input_TH, weight(layer.input_norm), saved.input_rstd_T, b.wide_grad_normed_TH, b.wide_grad_TH,
                    b.grad_TH, grads[static_cast<size_t>(layer.input_norm)]);
}

void TrainingPass::attention_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads) {
  const Transformer::Layer& layer = model_.layers()[index];
  TrainingBuffers& b = *buffers_;
  LayerBuffers& saved = b.layers[index];

  linear_grad_input(b.grad_TH, weight(layer.o), false, b.grad_mixed);
  project_backward(b.grad_TH, saved.mixed, layer.o, layer.o_bias, grads);
  const auto [q, k] = rotated(index);
  packed_attention_backward(b.grad_mixed, q, k, saved.v, saved.mixed, saved.logsumexp, plan_, model_.config().head_dim,
                            control, b.wide_grad_q, b.wide_grad_k, b.grad_v);
  rotate_backward(b.wide_grad_q, rotation_, b.grad_q);
  rotate_backward(b.wide_grad_k, rotation_, b.grad_k);
  if (model_.config().qk_norm) {
    rms_norm_backward(saved.q, weight(layer.q_norm), saved.q_rstd, b.wide_grad_q, {}, b.grad_q,
                      grads[static_cast<size_t>(layer.q_norm)]);
    rms_norm_backward(saved.k, weight(layer.k_norm), saved.k_rstd, b.wide_grad_k, {}, b.grad_k,
                      grads[static_cast<size_t>(layer.k_norm)]);
  }
}

}  // namespace archer
