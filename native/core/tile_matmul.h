// A linear layer of many rows and its gradients in bfloat16 tiles (kernels/tile_matmul.h): one operand is packed on the way, in
// pieces that fit the L2 cache, and the rows of the result are shared out among threads without changing a bit. For processors with
// tiles alone; see linear.h, linear_gradients.h.
#pragma once
#include <ATen/core/Tensor.h>

#include "kernels/tile_linear.h"

namespace archer {

// `to` as for the kernel of few rows (kernels/tile_linear.h), to the bit; up_weight_NK: of a gated product, or undefined.
void tile_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& up_weight_NK, const kernels::TileEpilogue& to);
// dx in float32, added where told, or rounded to bfloat16.
void tile_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK);
void tile_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK);

}  // namespace archer
