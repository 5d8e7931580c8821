// Gradients of y = x Wᵀ + bias, with float32 sums from bfloat16 operands:
//   dx_RK (+)= dy_RN W_NK;  dW_NK += dy_RNᵀ x_RK;  dbias_N += sum over R of dy_RN
// Legend: R rows, K inputs, N outputs. Operands have the compute dtype; the weights' gradients are float32 (float64 for a float64
// model), dx that or, where nothing is added, the compute dtype. All are row-major and contiguous.
#pragma once
#include <ATen/core/Tensor.h>

namespace archer {

void linear_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK);
void linear_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK);
void linear_grad_bias(const at::Tensor& dy_RN, const at::Tensor& grad_bias_N);

}  // namespace archer
