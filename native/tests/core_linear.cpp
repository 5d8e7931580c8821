// linear_product against float64, with every instruction set: odd sizes, biases, many rows, one row; and its promise that a
// row does not depend on the rows around it, nor on the number of threads: in tiles, and in a BatchInvariantScope.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cstdio>

#include "core/batch_invariance.h"
#include "core/linear.h"
#include "kernels/cpu_isa.h"

#undef CHECK  // libtorch's logging has a macro of this name
#include "check.h"

using namespace archer;

namespace {

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b).norm() / b.norm()).item<double>();
}

at::Tensor random(at::IntArrayRef sizes, double scale, at::ScalarType dtype = at::kBFloat16) {
  return (at::randn(sizes, at::kDouble) * scale).to(dtype);
}

void against_float64(const char* isa, at::ScalarType dtype, double tolerance, double wide_tolerance) {
  double worst = 0, worst_wide = 0;
  for (const int64_t rows : {1, 3, 16, 33, 520, 1030}) {
    for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{96, 64}, {33, 45}, {7, 3}, {192, 576}, {64, 7}}) {
      for (const bool with_bias : {false, true}) {
        const at::Tensor x = random({rows, inputs}, 1, dtype), weight = random({outputs, inputs}, 0.3, dtype);
        const at::Tensor bias = with_bias ? random({outputs}, 1, dtype) : at::Tensor();
        at::Tensor exact = x.to(at::kDouble).mm(weight.to(at::kDouble).t());
        if (with_bias) exact = exact + bias.to(at::kDouble);
        worst = std::max(worst, relative_error(linear_product(x, weight, bias), exact));
        at::Tensor wide = at::empty({rows, outputs}, dtype == at::kDouble ? at::kDouble : at::kFloat);
        if (!with_bias && own_logits(x, weight, wide)) {
          worst_wide = std::max(worst_wide, relative_error(wide, exact));
        }
      }
    }
  }
  std::printf("%s, %s: relative error %.2g, not rounded %.2g\n", isa, c10::toString(dtype), worst, worst_wide);
  CHECK(worst <= tolerance && worst_wide <= wide_tolerance);
}

void row_by_row(at::ScalarType dtype, int64_t inputs) {
  if (!linear_is_row_exact(dtype)) return;
  const at::Tensor x = random({70, inputs}, 1, dtype), weight = random({131, inputs}, 0.3, dtype), bias = random({131}, 1, dtype);
  const at::Tensor all = linear_product(x, weight, bias);
  for (const int64_t t : {0, 1, 31, 32, 69}) {
    CHECK(at::equal(linear_product(x.narrow(0, t, 1).contiguous(), weight, bias)[0], all[t]));
  }
  CHECK(at::equal(linear_product(x.narrow(0, 20, 17).contiguous(), weight, bias), all.narrow(0, 20, 17)));
  at::set_num_threads(2);
  const at::Tensor big = random({140, 512}, 1, dtype), big_weight = random({700, 512}, 0.3, dtype);
  const at::Tensor by_two = linear_product(big, big_weight);
  at::set_num_threads(1);
  CHECK(at::equal(linear_product(big, big_weight), by_two));
  CHECK(at::equal(linear_product(big.narrow(0, 7, 64).contiguous(), big_weight), by_two.narrow(0, 7, 64)));
}

// residual + x Wᵀ and silu(x Wgᵀ + bg) * (x Wuᵀ + bu), rounded step by step as by separate calls; few rows as many, to the bit.
void fused(at::ScalarType dtype) {
  for (const auto& [outputs, inputs] : {std::pair<int64_t, int64_t>{96, 64}, {33, 45}, {200, 640}}) {
    for (const int64_t rows : {1, 20, 50, 131}) {
      const at::Tensor x = random({rows, inputs}, 1, dtype), bias = random({outputs}, 1, dtype), up_bias = random({outputs}, 1, dtype);
      const at::Tensor weight = random({outputs, inputs}, 0.1, dtype), up_weight = random({outputs, inputs}, 0.1, dtype);
      const at::Tensor residual = random({rows, outputs}, 1, dtype), product = linear_product(x, weight, bias);
      const at::Tensor out = at::empty_like(residual), in_place = residual.clone(), alone = at::empty_like(residual);
      linear_products(x, {{weight, bias, out, residual}, {weight, bias, in_place, in_place}, {up_weight, up_bias, alone, {}}});
      CHECK(at::equal(out, residual + product) && at::equal(in_place, out) && at::equal(alone, linear_product(x, up_weight, up_bias)));

      const at::Tensor gate = at::empty_like(out), up = at::empty_like(out), gated = at::empty_like(out);
      if (!own_gated_product(x, {weight, bias, gate, {}}, {up_weight, up_bias, up, {}}, gated)) continue;
      CHECK(at::equal(gate, product) && at::equal(up, alone));
      const at::Tensor g = gate.to(at::kDouble), exact = g * g.sigmoid() * up.to(at::kDouble);
      CHECK(relative_error(gated, exact) < 3e-3);
      const at::Tensor last = at::empty({1, outputs}, dtype);
      CHECK(own_gated_product(x.narrow(0, rows - 1, 1).contiguous(), {weight, bias, {}, {}}, {up_weight, up_bias, {}, {}}, last));
      CHECK(at::equal(last[0], gated[rows - 1]));
    }
  }
}

// An infinite weight stays in its own output, also where the inputs are no whole tiles.
void infinities() {
  const at::Tensor x = at::ones({2, 45}, at::kBFloat16);
  at::Tensor weight = random({40, 45}, 0.3);
  weight[7].fill_(-std::numeric_limits<float>::infinity());
  const at::Tensor y = linear_product(x, weight);
  for (int64_t n = 0; n < 40; ++n) CHECK(std::isfinite(y[0][n].item<float>()) == (n != 7));
}

}  // namespace

int main() {
  at::set_num_threads(1);
  for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    against_float64(cpu_isa_name(isa), at::kBFloat16, 3e-3, 1e-6);
    row_by_row(at::kBFloat16, 96);
    fused(at::kBFloat16);
    infinities();
  }
  for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx2, CpuIsa::avx512}) {
    if (limit_cpu_isa(isa) != isa) continue;
    const BatchInvariantScope scope(true);
    against_float64(cpu_isa_name(isa), at::kBFloat16, 3e-3, 1e-6);
    against_float64(cpu_isa_name(isa), at::kFloat, 1e-6, 1e-6);
    against_float64(cpu_isa_name(isa), at::kDouble, 1e-15, 1e-15);
    for (const at::ScalarType dtype : {at::kBFloat16, at::kFloat, at::kDouble}) {
      for (const int64_t inputs : {96, 45}) row_by_row(dtype, inputs);
    }
    infinities();
  }
  // Many rows of other types go to ATen; few are multiplied one by one, and need not have the bits of a BLAS.
  against_float64("no scope", at::kFloat, 1e-6, 1e-6);
  const at::Tensor x = at::randn({20, 5}), weight = at::randn({4, 5});
  CHECK(!linear_is_row_exact(at::kFloat));
  CHECK(at::equal(linear_product(x, weight), at::linear(x, weight)));
  fused(at::kFloat);
  return check::finish();
}
