// Gradients of a linear layer in bfloat16 tiles (kernels/tile_matmul.h): operands are packed on the way, in pieces that fit the L2
// cache, and shared out among threads without changing a bit. For processors with tiles alone; see linear_gradients.h.
#pragma once
#include <ATen/core/Tensor.h>

namespace archer {

// dx in float32, added where told, or rounded to bfloat16.
void tile_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK);
void tile_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK);

}  // namespace archer
