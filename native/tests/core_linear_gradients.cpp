// The gradients of a linear layer against float64, with every instruction set, over odd sizes and more rows than are packed at once;
// that they add where they should, and do not depend on the number of threads.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "core/linear_gradients.h"
#include "kernels/cpu_isa.h"

#undef CHECK  // libtorch's logging has a macro of this name
#include "check.h"

using namespace archer;

namespace {

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).norm() / b.norm()).item<double>();
}

at::Tensor random(at::IntArrayRef sizes, at::ScalarType dtype) { return at::randn(sizes, at::kDouble).to(dtype); }

void against_float64(const char* name, at::ScalarType dtype, double tolerance) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  double worst = 0, worst_rounded = 0;
  for (const int64_t rows : {1, 31, 64, 390, 2100}) {
    for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{96, 64}, {33, 45}, {7, 3}, {1200, 64}, {64, 1200}}) {
      const at::Tensor x = random({rows, inputs}, dtype), weight = random({outputs, inputs}, dtype);
      const at::Tensor dy = random({rows, outputs}, dtype), before_dx = random({rows, inputs}, wide);
      const at::Tensor before_dw = random({outputs, inputs}, wide), before_db = random({outputs}, wide);
      const at::Tensor wide_dy = dy.to(at::kDouble), exact_dx = wide_dy.mm(weight.to(at::kDouble));
      const auto compare = [&](const at::Tensor& got, const at::Tensor& exact) {
        worst = std::max(worst, relative_error(got, exact));
      };
      at::Tensor dx = at::full({rows, inputs}, NAN, wide), rounded = at::full({rows, inputs}, NAN, dtype);
      linear_grad_input(dy, weight, false, dx);
      compare(dx, exact_dx);
      linear_grad_input(dy, weight, false, rounded);
      worst_rounded = std::max(worst_rounded, relative_error(rounded, exact_dx));
      dx.copy_(before_dx);
      linear_grad_input(dy, weight, true, dx);
      compare(dx, before_dx.to(at::kDouble) + exact_dx);
      const at::Tensor dw = before_dw.clone(), db = before_db.clone();
      linear_grad_weight(dy, x, dw);
      compare(dw, before_dw.to(at::kDouble) + wide_dy.t().mm(x.to(at::kDouble)));
      linear_grad_bias(dy, db);
      compare(db, before_db.to(at::kDouble) + wide_dy.sum(0));
    }
  }
  std::printf("%s, %s: relative error %.2g, rounded %.2g\n", name, c10::toString(dtype), worst, worst_rounded);
  CHECK(worst <= tolerance && worst_rounded <= (dtype == at::kBFloat16 ? 3e-3 : tolerance));
}

// Whatever stands behind the last row or column of an operand.
void infinities() {
  const at::Tensor dy = at::ones({3, 45}, at::kBFloat16), weight = at::ones({45, 40}, at::kBFloat16), dx = at::empty({3, 40});
  dy[1].fill_(std::numeric_limits<float>::infinity());
  linear_grad_input(dy, weight, false, dx);
  for (int64_t row = 0; row < 3; ++row) CHECK(dx[row].isfinite().all().item<bool>() == (row != 1));
}

void same_bits() {
  const at::Tensor x = random({700, 640}, at::kBFloat16), weight = random({200, 640}, at::kBFloat16);
  const at::Tensor dy = random({700, 200}, at::kBFloat16);
  const auto both = [&] {
    const at::Tensor dx = at::empty({700, 640}), dw = at::zeros({200, 640});
    linear_grad_input(dy, weight, false, dx);
    linear_grad_weight(dy, x, dw);
    return std::pair{dx, dw};
  };
  const auto one = both();
  at::set_num_threads(2);
  const auto two = both();
  at::set_num_threads(1);
  CHECK(at::equal(one.first, two.first) && at::equal(one.second, two.second));
}

}  // namespace

int main() {
  at::set_num_threads(1);
  at::manual_seed(1);
  against_float64("ATen", at::kDouble, 1e-13);
  against_float64("ATen", at::kFloat, 2e-6);
  for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    against_float64(cpu_isa_name(isa), at::kBFloat16, 1e-6);
    infinities();
    same_bits();
  }
  return check::finish();
}
