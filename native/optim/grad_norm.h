// The global L2 norm of all gradients and the factor that clips it, as torch.nn.utils.clip_grad_norm_ computes them:
// factor = min(1, max_norm / (norm + 1e-6)). The gradients themselves are not touched: AdamW folds the factor in.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace archer {

struct GradNorm {
  double norm = 0.0;        // float64, the same for every thread count
  double clip_scale = 1.0;  // 1 where max_norm <= 0 (clipping off); 0 where the norm is not finite
  bool finite = true;       // false: skip the update and count it
};

// Contiguous float32 or float64 tensors; ARCHER_E_SHAPE otherwise. An undefined tensor counts as zeros.
GradNorm grad_norm(const std::vector<at::Tensor>& grads, double max_norm);

}  // namespace archer
