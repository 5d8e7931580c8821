// The gradient norm: torch.nn.utils.clip_grad_norm_'s numbers, a plain sum, the same bits for 1 and 2 threads, and
// detection of what is not finite.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "optim/blocks.h"
#include "optim/grad_norm.h"

#include "tests/check.h"

int main() {
  const auto float32 = at::TensorOptions().dtype(at::kFloat);
  const auto float64 = at::TensorOptions().dtype(at::kDouble);
  {
    // torch: norm 13, gradients (3, 4, 12) clipped to 1.0 become .2307692, .3076923, .9230769.
    const std::vector<at::Tensor> grads = {at::tensor({3.0, 4.0}, float32), at::Tensor(), at::tensor({12.0}, float64)};
    const archer::GradNorm clipped = archer::grad_norm(grads, 1.0);
    CHECK(clipped.finite);
    CHECK_NEAR(clipped.norm, 13.0, 1e-14);
    CHECK_NEAR(clipped.clip_scale * 3.0, 0.23076921701431274, 3e-8);
    CHECK_NEAR(clipped.clip_scale, 1.0 / (13.0 + 1e-6), 1e-16);
    CHECK(archer::grad_norm(grads, 100.0).clip_scale == 1.0);
    CHECK(archer::grad_norm(grads, 0.0).clip_scale == 1.0);
    CHECK(archer::grad_norm({}, 1.0).norm == 0.0);
  }
  {
    // Squares that overflow float32 and many small ones: the sum is float64.
    CHECK_NEAR(archer::grad_norm({at::full({4}, 1e30, float32)}, 1.0).norm / 2e30, 1.0, 1e-7);
    const int64_t n = archer::kBlockSize * 5 + 13;
    at::Tensor grad = at::empty({n}, float32);
    double plain = 0.0;
    for (int64_t i = 0; i < n; ++i) {
      const float value = static_cast<float>(archer::sample_uniform(1, 2, 3, 4, static_cast<uint32_t>(i)) - 0.5);
      grad.mutable_data_ptr<float>()[i] = value;
      plain += static_cast<double>(value) * value;
    }
    const std::vector<at::Tensor> grads = {grad, at::zeros({0}, float32), grad.to(at::kDouble)};
    at::set_num_threads(1);
    const double one = archer::grad_norm(grads, 1.0).norm;
    at::set_num_threads(2);
    const double two = archer::grad_norm(grads, 1.0).norm;
    CHECK(one == two);
    CHECK_NEAR(one / std::sqrt(2.0 * plain), 1.0, 1e-12);
  }
  for (const double bad : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    at::Tensor grad = at::zeros({archer::kBlockSize + 3}, float32);
    grad.mutable_data_ptr<float>()[archer::kBlockSize + 1] = static_cast<float>(bad);
    const archer::GradNorm result = archer::grad_norm({at::full({5}, 1.0, float32), grad}, 1.0);
    CHECK(!result.finite);
    CHECK(result.clip_scale == 0.0);
  }
  const std::vector<at::Tensor> unusable = {at::zeros({4, 4}, float32).t(),
                                            at::zeros({4}, at::TensorOptions().dtype(at::kBFloat16))};
  for (const at::Tensor& grad : unusable) {
    std::string code = "none";
    try {
      archer::grad_norm({grad}, 1.0);
    } catch (const archer::ArcherError& error) {
      code = error.code();
    }
    CHECK(code == archer::kShape);
  }
  return check::finish();
}
