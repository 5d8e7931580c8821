// Linear layers and their gradients on a GPU: the twins of linear.h, linear_gradients.h and low_rank.h, with their legends. cuBLAS
// multiplies with float32 sums, to which a bias and a residual are added before they are rounded.
#pragma once
#include <vector>

#include "core/gpu.h"
#include "core/linear.h"

namespace archer {

void gpu_linear_products(Gpu& gpu, const at::Tensor& x_RK, const std::vector<Projection>& projections);
// out [R, V] in float32.
void gpu_logits(Gpu& gpu, const at::Tensor& x_RK, const at::Tensor& weight_VK, const at::Tensor& out_RV);

void gpu_grad_input(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK,
                    double scale = 1.0);
void gpu_grad_weight(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK);
void gpu_grad_bias(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& grad_bias_N);

void gpu_low_rank_grad_input(Gpu& gpu, const at::Tensor& dy_RN, const LowRank& adapter, const at::Tensor& dx_RK);
void gpu_low_rank_grad_weights(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& x_RK, const LowRank& adapter,
                               const at::Tensor& grad_a_rK, const at::Tensor& grad_b_Nr);

// to_C += the sums of `sums`, whose partial ones are made here.
void gpu_add_column_sums(Gpu& gpu, ColumnSums sums, const at::Tensor& to_C);

}  // namespace archer
