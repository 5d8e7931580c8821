// The slow, plain reference that tests and the gradient check hold fused_loss against: full logits, log_softmax, one
// ATen operation after another, gradients by ATen's autograd. Nothing here is shared with token_math.h or the kernels.
// Legend: T tokens, N responses, H hidden size, V vocabulary.
#pragma once
#include <ATen/core/Tensor.h>

#include "loss/token_loss.h"

namespace archer {

struct NaiveLossResult {
  at::Tensor loss;            // scalar
  at::Tensor log_probs;       // [T]
  at::Tensor entropies;       // [T]
  at::Tensor classes;         // [T] int64: 0, 1, or 255 for tokens not in the loss
  at::Tensor grad_hidden_TH;  // dtype of hidden_TH
  at::Tensor grad_head_VH;    // dtype of head_VH
};

// Same batch, options and definitions as fused_loss. bfloat16 inputs give bfloat16 logits, which are then cast to
// float32, as training frameworks do. Masked tokens must hold finite values here.
NaiveLossResult naive_loss(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                           const LossOptions& options);

}  // namespace archer
