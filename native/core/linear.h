// y = x Wᵀ + bias without autograd: our own tiles for bfloat16 where the processor has them (kernels/tile_linear.h, tile_matmul.h); else
// rows one by one (kernels/row_linear.h) where there are few of them or in a BatchInvariantScope; else ATen.
// Legend: R rows, K inputs, N outputs.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "core/low_rank.h"

namespace archer {

// Where x Wᵀ + bias goes; contiguous, of the dtype of x. bias, residual and adapter may be undefined.
struct Projection {
  at::Tensor weight_NK, bias_N;
  at::Tensor out_RN;
  at::Tensor residual_RN;  // added to the rounded product
  LowRank adapter = {};    // its product is rounded and added last
};

// x_RK [.., K] and weight_NK of one dtype. Returns [.., N] of that dtype.
at::Tensor linear_product(const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& bias_N = {});
// Several layers of the same rows.
void linear_products(const at::Tensor& x_RK, const std::vector<Projection>& projections);
// out = silu(gate) * up with the projections of two layers, which are kept where `out_RN` of theirs is defined. False where there are
// no tiles, or adapters: nothing is done then.
bool own_gated_product(const at::Tensor& x_RK, const Projection& gate, const Projection& up, const at::Tensor& out_RN);

// Whether these compute each row in the same way whatever rows stand around it.
bool linear_is_row_exact(at::ScalarType dtype);

// The same product, of bfloat16 inputs not rounded to bfloat16. False where ATen would have to multiply: nothing is done then.
bool own_logits(const at::Tensor& x_RK, const at::Tensor& weight_NK, at::Tensor& out_RN);

}  // namespace archer
