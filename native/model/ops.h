// The row-wise functions of a decoder layer over tensors, each our own kernel (native/kernels/decoder_rows.h) over all threads. Those
// ending in _into write into a tensor of the caller. Gradients: row_gradients.h.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "core/linear.h"

namespace archer {

// Cosines and sines of the rotary embedding, [positions, D/2], and the positions of the tokens at hand.
struct Rotation {
  at::Tensor cosine;
  at::Tensor sine;
  at::Tensor positions_T;  // int32
};

constexpr int64_t kGrainElements = 16384;  // less work than this is not worth a second thread
inline int64_t grain(int64_t row_size) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, row_size)); }

// RMSNorm over the last dimension of `weight`'s size: x may hold several heads per row. Same shape as x.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);
// `rstd` [rows], float32 (float64 for a float64 model): 1 / sqrt(mean(x²) + eps); may be undefined.
void rms_norm_into(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out, const at::Tensor& rstd);

// silu(gate) * up of two projections of x_TH, which are kept where `out_RN` of theirs is defined.
void gated_product_into(const at::Tensor& x_TH, Projection gate, Projection up, const at::Tensor& out_TI);

// out_TH[t] = table_VH[ids_T[t]], ids_T int64 on the host.
void embedding_into(const at::Tensor& table_VH, const at::Tensor& ids_T, const at::Tensor& out_TH);

// x [T, heads * D], every head rotated by its token's angle. `out` may be x.
void rotate_into(const at::Tensor& x, const Rotation& rotation, const at::Tensor& out);

}  // namespace archer
