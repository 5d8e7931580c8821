// y = x Wᵀ + bias without autograd: our own tiles for bfloat16 where the processor has them (kernels/tile_linear.h); else rows one by
// one (kernels/row_linear.h) where there are few of them or in a BatchInvariantScope; else ATen.
// Legend: R rows, K inputs, N outputs.
#pragma once
#include <ATen/core/Tensor.h>

namespace archer {

// x_RK [.., K] and weight_NK of one dtype; bias_N may be undefined. Returns [.., N] of that dtype.
at::Tensor linear_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N = {});
// The same, to the last bit, into a contiguous tensor of the caller.
void linear_product_into(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N, const at::Tensor& out_RN);

// Whether linear_product() computes each row in the same way whatever rows stand around it.
bool linear_is_row_exact(at::ScalarType dtype);

// The same product, of bfloat16 inputs not rounded to bfloat16. False where ATen would have to multiply: nothing is done then.
bool own_logits(const at::Tensor& x_RK, const at::Tensor& weight_NK, at::Tensor& out_RN);

}  // namespace archer
