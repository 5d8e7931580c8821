#include "core/gpu_linear.h"

#include <ATen/ops/empty.h>

namespace archer {
namespace {

// out_RN = scale x_RK W_NKᵀ, or added.
void multiply(Gpu& gpu, const at::Tensor& x_RK, const at::Tensor& weight_NK, const at::Tensor& out_RN, bool add, double scale) {
  const int64_t inputs = weight_NK.size(1);
  gpu.layers->multiply({bf16(x_RK), bf16(weight_NK), false, true, out_RN.data_ptr(), out_RN.scalar_type() == at::kFloat, add,
                        x_RK.numel() / inputs, weight_NK.size(0), inputs, static_cast<float>(scale)});
}

at::Tensor narrow_like(const at::Tensor& x, int64_t columns) { return at::empty({x.size(0), columns}, x.options()); }

at::Tensor du_of(Gpu& gpu, const at::Tensor& dy_RN, const LowRank& adapter) {
  const at::Tensor du_Rr = narrow_like(dy_RN, adapter.rank());
  gpu_grad_input(gpu, dy_RN, adapter.b_Nr, false, du_Rr, adapter.scale);
  return du_Rr;
}

}  // namespace

void gpu_linear_products(Gpu& gpu, const at::Tensor& x_RK, const std::vector<Projection>& projections) {
  for (const Projection& to : projections) {
    const int64_t outputs = to.weight_NK.size(0);
    const bool starts = to.bias_N.defined() || to.residual_RN.defined();
    const bool in_place = !to.bias_N.defined() && bf16(to.residual_RN) == bf16(to.out_RN);
    if (starts && !in_place) {
      gpu.layers->run(StartRows{bf16(to.bias_N), bf16(to.residual_RN), bf16(to.out_RN), to.out_RN.numel() / outputs,
                                static_cast<int32_t>(outputs)});
    }
    multiply(gpu, x_RK, to.weight_NK, to.out_RN, starts, 1.0);
    if (to.adapter.defined()) {
      const at::Tensor u_Rr = narrow_like(x_RK, to.adapter.rank());
      multiply(gpu, x_RK, to.adapter.a_rK, u_Rr, false, to.adapter.scale);
      multiply(gpu, u_Rr, to.adapter.b_Nr, to.out_RN, true, 1.0);
    }
  }
}

void gpu_logits(Gpu& gpu, const at::Tensor& x_RK, const at::Tensor& weight_VK, const at::Tensor& out_RV) {
  multiply(gpu, x_RK, weight_VK, out_RV, false, 1.0);
}

void gpu_grad_input(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK,
                    double scale) {
  gpu.layers->multiply({bf16(dy_RN), bf16(weight_NK), false, false, dx_RK.data_ptr(), dx_RK.scalar_type() == at::kFloat, add,
                        dy_RN.size(0), weight_NK.size(1), weight_NK.size(0), static_cast<float>(scale)});
}

void gpu_grad_weight(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK) {
  gpu.layers->multiply({bf16(dy_RN), bf16(x_RK), true, false, grad_weight_NK.data_ptr(), true, true, dy_RN.size(1), x_RK.size(1),
                        dy_RN.size(0)});
}

void gpu_grad_bias(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& grad_bias_N) {
  ColumnSums sums{};
  sums.dy = bf16(dy_RN);
  sums.rows = dy_RN.size(0);
  gpu_add_column_sums(gpu, sums, grad_bias_N);
}

void gpu_low_rank_grad_input(Gpu& gpu, const at::Tensor& dy_RN, const LowRank& adapter, const at::Tensor& dx_RK) {
  gpu_grad_input(gpu, du_of(gpu, dy_RN, adapter), adapter.a_rK, true, dx_RK);
}

void gpu_low_rank_grad_weights(Gpu& gpu, const at::Tensor& dy_RN, const at::Tensor& x_RK, const LowRank& adapter,
                               const at::Tensor& grad_a_rK, const at::Tensor& grad_b_Nr) {
  gpu_grad_weight(gpu, du_of(gpu, dy_RN, adapter), x_RK, grad_a_rK);
  const at::Tensor u_Rr = narrow_like(x_RK, adapter.rank());
  multiply(gpu, x_RK, adapter.a_rK, u_Rr, false, adapter.scale);
  gpu_grad_weight(gpu, dy_RN, u_Rr, grad_b_Nr);
}

void gpu_add_column_sums(Gpu& gpu, ColumnSums sums, const at::Tensor& to_C) {
  const int64_t columns = to_C.numel();
  sums.columns = static_cast<int32_t>(columns);
  sums.rows_per_block = rows_per_column_block(sums.rows);
  const int64_t blocks = blocks_for(sums.rows, sums.rows_per_block);
  const at::Tensor partial = at::empty({blocks, columns}, to_C.options());
  sums.partial = pointer<float>(partial);
  gpu.layers->run(sums);
  gpu.layers->run(AddPartialSums{sums.partial, pointer<float>(to_C), static_cast<int32_t>(blocks), sums.columns});
}

}  // namespace archer
