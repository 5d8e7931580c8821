#include "core/low_rank.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "core/gpu_linear.h"
#include "core/linear.h"
#include "core/linear_gradients.h"

namespace archer {
namespace {

at::Tensor du_of(const at::Tensor& dy_RN, const LowRank& adapter) {
  const at::Tensor du_Rr = at::empty({dy_RN.size(0), adapter.rank()}, dy_RN.options());
  linear_grad_input(dy_RN, adapter.b_Nr, false, du_Rr);
  return du_Rr.mul_(adapter.scale);
}

}  // namespace

void low_rank_grad_input(const at::Tensor& dy_RN, const LowRank& adapter, const at::Tensor& dx_RK) {
  if (Gpu* gpu = gpu_of(dy_RN)) return gpu_low_rank_grad_input(*gpu, dy_RN, adapter, dx_RK);
  const at::Tensor du_Rr = du_of(dy_RN, adapter);
  if (dx_RK.scalar_type() != at::kBFloat16) {
    linear_grad_input(du_Rr, adapter.a_rK, true, dx_RK);
  } else {  // linear_grad_input() adds to wide gradients alone
    const at::Tensor part_RK = at::empty_like(dx_RK);
    linear_grad_input(du_Rr, adapter.a_rK, false, part_RK);
    dx_RK.add_(part_RK);
  }
}

void low_rank_grad_weights(const at::Tensor& dy_RN, const at::Tensor& x_RK, const LowRank& adapter, const at::Tensor& grad_a_rK,
                           const at::Tensor& grad_b_Nr) {
  if (Gpu* gpu = gpu_of(dy_RN)) return gpu_low_rank_grad_weights(*gpu, dy_RN, x_RK, adapter, grad_a_rK, grad_b_Nr);
  linear_grad_weight(du_of(dy_RN, adapter), x_RK, grad_a_rK);
  linear_grad_weight(dy_RN, linear_product(x_RK, adapter.a_rK).mul_(adapter.scale), grad_b_Nr);
}

}  // namespace archer
