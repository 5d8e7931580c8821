// The transformer's training forward and backward, layer by layer and written out: no autograd. Gradients are added in place
// into the caller's float32 buffers. Memory is one arena, kept from micro-batch to micro-batch.
// The layers' equations are in layer_forward.cpp and layer_backward.cpp.
#pragma once
#include <optional>
#include <utility>
#include <vector>

#include "model/attention_buckets.h"
#include "model/ops.h"
#include "model/training_buffers.h"
#include "model/transformer.h"

namespace archer {

class TrainingPass {
 public:
  // checkpoint: keep the layers' inputs alone and run each layer's forward again in the backward. The same bits.
  explicit TrainingPass(const Transformer& model, bool checkpoint = false);

  // Hidden states after the final norm [T, H], the bits of Transformer::hidden_states(). They stand until the next forward().
  at::Tensor forward(const PackedSequences& sequences, const JobControl* control);

  // Adds the gradients of d loss / d hidden [T, H], once per forward(), into `grads` (float32, one per parameter in the order of
  // trained(), same shapes). The head's own gradient comes from the loss, which adds into the same buffer.
  void backward(const at::Tensor& grad_hidden_TH, std::vector<at::Tensor>& grads, const JobControl* control);

  // What the arena takes now: activation_bytes() of the largest micro-batch so far.
  int64_t memory_bytes() const { return memory_.defined() ? static_cast<int64_t>(memory_.nbytes()) : 0; }
  // Gives the arena back until the next forward().
  void release();

 private:
  const at::Tensor& weight(int64_t index) const;
  // q and k as attention reads them: as they were saved, or with a QK norm computed from that.
  std::pair<at::Tensor, at::Tensor> rotated(size_t index);
  // output_TH undefined: only what the backward of this layer reads.
  void layer_forward(size_t index, const JobControl* control, const at::Tensor& output_TH);
  // The buffer of a parameter's gradient; undefined where the model is frozen under adapters.
  at::Tensor gradient(const std::vector<at::Tensor>& grads, int64_t parameter) const;
  // The gradient of a projection's input, and then of its weight and bias or of its adapter.
  void input_gradient(const at::Tensor& dy, int64_t weight_index, bool add, const at::Tensor& dx) const;
  void weight_gradients(const at::Tensor& dy, const at::Tensor& x, int64_t weight_index, int64_t bias_index,
                        std::vector<at::Tensor>& grads) const;
  // From the gradient of the layer's output to that of its input, in place in wide_grad_TH and grad_TH.
  void layer_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads);
  void attention_backward(size_t index, const JobControl* control, std::vector<at::Tensor>& grads);

  const Transformer& model_;
  bool checkpoint_;
  at::Tensor memory_;
  // Of the micro-batch at hand.
  std::vector<at::Tensor> weights_;
  std::optional<TrainingBuffers> buffers_;
  AttentionPlan plan_;
  Rotation rotation_;
  at::Tensor ids_T_;
  bool has_forward_ = false;
};

}  // namespace archer
