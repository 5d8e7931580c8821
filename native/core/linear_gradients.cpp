#include "core/linear_gradients.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/sum.h>

#include "core/gpu_linear.h"
#include "core/head_gemm.h"
#include "core/tile_matmul.h"
#include "kernels/tile_head.h"

namespace archer {
namespace {

bool has_tiles(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 && kernels::tile_kernels(); }

}  // namespace

void linear_grad_input(const at::Tensor& dy_RN, const at::Tensor& weight_NK, bool add, const at::Tensor& dx_RK) {
  if (Gpu* gpu = gpu_of(dy_RN)) return gpu_grad_input(*gpu, dy_RN, weight_NK, add, dx_RK);
  if (has_tiles(dy_RN)) return tile_grad_input(dy_RN, weight_NK, add, dx_RK);
  const at::ScalarType wide = dy_RN.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const bool direct = !add && dx_RK.scalar_type() == wide;
  at::Tensor product = direct ? dx_RK : at::empty(dx_RK.sizes(), wide);
  head_grad_hidden(dy_RN, weight_NK, product);
  if (add) dx_RK.add_(product);
  else if (!direct) dx_RK.copy_(product);
}

void linear_grad_weight(const at::Tensor& dy_RN, const at::Tensor& x_RK, const at::Tensor& grad_weight_NK) {
  if (Gpu* gpu = gpu_of(dy_RN)) return gpu_grad_weight(*gpu, dy_RN, x_RK, grad_weight_NK);
  if (has_tiles(dy_RN)) return tile_grad_weight(dy_RN, x_RK, grad_weight_NK);
  at::Tensor target = grad_weight_NK;
  head_grad_weight(dy_RN, x_RK, target);
}

void linear_grad_bias(const at::Tensor& dy_RN, const at::Tensor& grad_bias_N) {
  if (Gpu* gpu = gpu_of(dy_RN)) return gpu_grad_bias(*gpu, dy_RN, grad_bias_N);
  grad_bias_N.add_(dy_RN.sum(0, false, grad_bias_N.scalar_type()));
}

}  // namespace archer
