// The adapter of a frozen linear layer (LoRA): y = x Wᵀ + s (x Aᵀ) Bᵀ with s = alpha / r, and its gradients beside those of
// linear_gradients.h; the product itself is linear_products(). What has the rank's width, u = s x Aᵀ and du = s dy B, is rounded to
// the compute dtype, and formed again where it is needed.
// Legend: R rows, K inputs, N outputs, r the rank.
#pragma once
#include <ATen/core/Tensor.h>

namespace archer {

struct LowRank {
  at::Tensor a_rK, b_Nr;  // in the compute dtype
  double scale = 1.0;
  bool defined() const { return a_rK.defined(); }
  int64_t rank() const { return a_rK.size(0); }
};

// dx_RK += du A
void low_rank_grad_input(const at::Tensor& dy_RN, const LowRank& adapter, const at::Tensor& dx_RK);

// dA += duᵀ x;  dB += dyᵀ u
void low_rank_grad_weights(const at::Tensor& dy_RN, const at::Tensor& x_RK, const LowRank& adapter, const at::Tensor& grad_a_rK,
                           const at::Tensor& grad_b_Nr);

}  // namespace archer
