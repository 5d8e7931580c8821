#include "model/training_pass.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include "core/profile.h"
#include "model/row_gradients.h"

namespace archer {

TrainingPass::TrainingPass(const Transformer& model, bool checkpoint) : model_(model), checkpoint_(checkpoint) {
  require(model.trainable(), kModel, "the policy was loaded with trainable: false");
}

const at::Tensor& TrainingPass::weight(int64_t index) const { return weights_[static_cast<size_t>(index)]; }

void TrainingPass::release() {
  buffers_.reset();
  memory_ = at::Tensor();
  has_forward_ = false;
}

at::Tensor TrainingPass::forward(const PackedSequences& sequences, const JobControl* control) {
  const at::NoGradGuard no_grad;
  const ProfileSpan span("forward");
  rotation_ = model_.rotation_of(sequences);
  weights_ = model_.weights();
  plan_ = AttentionPlan(sequences);
  ids_T_ = ids_tensor(sequences.ids);

  const int64_t tokens = sequences.num_tokens();
  const int64_t bytes = activation_bytes(model_.config(), model_.compute_dtype(), tokens, checkpoint_);
  buffers_.reset();
  if (memory_bytes() < bytes) {
    memory_ = at::Tensor();  // before the larger one is asked for
    memory_ = at::empty({bytes}, at::TensorOptions(at::kByte).device(model_.device()));
  }
  Arena arena(memory_);
  buffers_.emplace(arena, model_.config(), model_.compute_dtype(), tokens, checkpoint_);
  has_forward_ = false;

  TrainingBuffers& b = *buffers_;
  embedding_into(weight(model_.embedding_index()), ids_T_, b.layers[0].input_TH);
  for (size_t i = 0; i < b.layers.size(); ++i) {
    if (control) control->check();
    const ProfileSpan span("layer", static_cast<int64_t>(i));
    layer_forward(i, control, i + 1 < b.layers.size() ? b.layers[i + 1].input_TH : b.output_TH);
  }
  rms_norm_into(b.output_TH, weight(model_.final_norm_index()), model_.config().rms_norm_eps, b.hidden_TH, b.output_rstd_T);
  has_forward_ = true;
  return b.hidden_TH;
}

void TrainingPass::backward(const at::Tensor& grad_hidden_TH, std::vector<at::Tensor>& grads, const JobControl* control) {
  require(has_forward_, kInternal, "backward needs a forward of its own");
  TrainingBuffers& b = *buffers_;
  require(grad_hidden_TH.sizes() == b.hidden_TH.sizes(), kShape, "the gradient has another shape than the hidden states");
  require(grads.size() == model_.trained().size(), kShape, "backward needs one gradient buffer per trained parameter");
  const at::NoGradGuard no_grad;
  const ProfileSpan span("backward");
  has_forward_ = false;
  b.wide_grad_normed_TH.copy_(grad_hidden_TH);
  b.wide_grad_TH.zero_();
  const int64_t final_norm = model_.final_norm_index();
  rms_norm_backward(b.output_TH, weight(final_norm), b.output_rstd_T, b.wide_grad_normed_TH, b.wide_grad_TH, b.grad_TH,
                    gradient(grads, final_norm));
  for (size_t i = b.layers.size(); i-- > 0;) {
    if (control) control->check();
    const ProfileSpan span("layer", static_cast<int64_t>(i));
    if (checkpoint_) layer_forward(i, control, {});
    layer_backward(i, control, grads);
  }
  if (const at::Tensor grad = gradient(grads, model_.embedding_index()); grad.defined()) {
    embedding_backward(ids_T_, b.wide_grad_TH, grad);
  }
}

}  // namespace archer
