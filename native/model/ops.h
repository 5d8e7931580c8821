// The row-wise functions of a decoder layer over tensors. Each runs our own kernel over all threads and, where
// gradients are recorded, enters autograd as one node with a hand-written backward (native/kernels/decoder_rows.h).
// Weight gradients are summed in blocks of a fixed number of rows: the result does not depend on the thread count.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace archer {

// Cosines and sines of the rotary embedding, [positions, D/2], and the positions of the tokens at hand.
struct Rotation {
  at::Tensor cosine;
  at::Tensor sine;
  at::Tensor positions_T;  // int32
};

// RMSNorm over the last dimension of `weight`'s size: x may hold several heads per row. Same shape as x.
// x Wᵀ + bias [.., N]; bias may be undefined. With the same bits with and without autograd.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// silu(gate) * up
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

// x [T, heads * D], every head rotated by its token's angle.
at::Tensor rotate(const at::Tensor& x, const Rotation& rotation);

}  // namespace archer
