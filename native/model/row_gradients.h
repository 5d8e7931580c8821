// Gradients of the row-wise functions of ops.h, in place and over all threads. Sums over tokens are taken in blocks of a fixed
// number of rows: the result does not depend on the thread count.
// Legend: T tokens; "wide" tensors have the dtype of the gradients, float32 (float64 for a float64 model), the others the compute
// dtype. A wide tensor and its rounded one may be the same where the dtypes are.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/ops.h"

namespace archer {

// dx of y = rms_norm(x, weight) from wide dy; with wide `sum`: sum += dx, rounded = sum; without: rounded = dx.
// grad_weight += its gradient, where it is defined. `rstd` of rms_norm_into().
void rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd, const at::Tensor& wide_dy,
                       const at::Tensor& wide_sum, const at::Tensor& rounded, const at::Tensor& grad_weight);

// y = swiglu(gate, up): gate and up become their gradients, y is computed once more.
void swiglu_backward(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy, const at::Tensor& y);

// The gradient before rotate_into() from the one behind it, in place, and rounded.
void rotate_backward(const at::Tensor& wide_grad, const Rotation& rotation, const at::Tensor& rounded);

// grad_VH[ids_T[t]] += wide_dx_TH[t]
void embedding_backward(const at::Tensor& ids_T, const at::Tensor& wide_dx_TH, const at::Tensor& grad_VH);

}  // namespace archer
