// AdamW against PyTorch 2.13's numbers (torch.optim.AdamW, three steps, one tensor with decay and one without), against
// a plain loop, and for independence of the thread count; saved state; refusals.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <string>
#include <vector>

#include "core/error.h"
#include "core/philox.h"
#include "optim/adamw.h"

#include "tests/check.h"

using archer::AdamW;
using archer::AdamWOptions;
using archer::Parameter;

namespace {

at::Tensor tensor_of(const std::vector<double>& values, at::ScalarType dtype) {
  return at::tensor(values, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

double element(const at::Tensor& tensor, int64_t i) {
  return tensor.scalar_type() == at::kFloat ? tensor.const_data_ptr<float>()[i] : tensor.const_data_ptr<double>()[i];
}

void check_all(const at::Tensor& actual, const std::vector<double>& expected, double relative, double absolute) {
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK_NEAR(element(actual, i), expected[i], relative * std::abs(expected[i]) + absolute);
  }
}

Parameter make_parameter(const std::string& name, const at::Tensor& master, bool decays) {
  Parameter parameter;
  parameter.name = name;
  parameter.master = master;
  parameter.compute = master;
  parameter.decays = decays;
  return parameter;
}

at::Tensor random_tensor(int64_t n, uint32_t key, double scale, at::ScalarType dtype) {
  at::Tensor values = at::empty({n}, at::TensorOptions().dtype(at::kDouble));
  for (int64_t i = 0; i < n; ++i) {
    const double u = archer::sample_uniform(7, 0, key, 0, static_cast<uint32_t>(i));
    values.mutable_data_ptr<double>()[i] = scale * (2.0 * u - 1.0);
  }
  return values.to(dtype);
}

// lr 1e-2, 2e-2, 5e-3; betas .9/.999; eps 1e-8; weight decay .1 on the first tensor only.
void test_pytorch_numbers(at::ScalarType dtype) {
  const std::vector<std::vector<double>> first = {
      {0.1, -0.2, 3.0, 0.0, -1e-4, 1e-9}, {-0.3, 0.05, -1.0, 0.0, 2e-4, -5e-9}, {0.02, 0.7, 0.4, 1e-3, -3.0, 2e-8}};
  const std::vector<std::vector<double>> second = {{0.5, 0.25}, {-1.5, 0.125}, {2.0, -0.75}};
  const double lrs[] = {1e-2, 2e-2, 5e-3};
  const std::vector<std::vector<double>> first_after = {
      {0.4895000009999999, -1.2387500005, 1.9880000000333333, 0.0, 3.0069990000999898, -0.0019080909090909092},
      {0.4984047972220132, -1.2268831377190894, 1.976019628629982, 0.0, 2.9936633945487148, 0.0012676110478141043},
      {0.4998601144291994, -1.2288217305530253, 1.973095817057509, -0.00319401270272842, 2.995360525416897,
       -0.00010572179863074663}};
  const std::vector<std::vector<double>> second_after = {{0.9900000002, -2.0099999996},
                                                         {0.999883796777556, -2.0286435914327874},
                                                         {0.9985617956766164, -2.026907473935529}};
  std::vector<Parameter> parameters = {
      make_parameter("matrix", tensor_of({0.5, -1.25, 2.0, 0.0, 3.0, -0.001}, dtype), true),
      make_parameter("norm", tensor_of({1.0, -2.0}, dtype), false)};
  AdamW optimizer(parameters, AdamWOptions{});
  // float64 agrees to rounding; in float32 the parameters are of order 1, so its rounding is about 1e-7 absolute.
  const double relative = dtype == at::kDouble ? 1e-12 : 1e-6, absolute = dtype == at::kDouble ? 1e-15 : 2e-7;
  for (int step = 0; step < 3; ++step) {
    // Half of the steps get doubled gradients and a scale of one half: the scale must act like the gradient itself.
    const double scale = step % 2 == 0 ? 1.0 : 0.5;
    const std::vector<at::Tensor> grads = {tensor_of(first[step], dtype).div_(scale),
                                           tensor_of(second[step], dtype).div_(scale)};
    optimizer.step(lrs[step], grads, scale);
    check_all(parameters[0].master, first_after[step], relative, absolute);
    check_all(parameters[1].master, second_after[step], relative, absolute);
  }
  CHECK(optimizer.num_steps() == 3);
  check_all(optimizer.exp_avg()[0], {-0.0169, 0.0583, 0.193, 1e-4, -0.2999900999999999, 1.631e-9}, relative, 0.0);
  check_all(optimizer.exp_avg_sq()[0],
            {0.00010029001, 0.00053241754, 0.010141009, 1e-9, 0.009000000049940018, 4.25973001e-19}, relative, 0.0);
}

// Sizes around the block and vector widths, against a loop that is written as the paper writes it.
void test_plain_loop(at::ScalarType dtype, double tolerance) {
  for (const int64_t n : {int64_t{1}, int64_t{7}, int64_t{17}, archer::kBlockSize, archer::kBlockSize * 3 + 5}) {
    std::vector<Parameter> parameters = {make_parameter("w", random_tensor(n, 1, 1.0, dtype), true)};
    AdamWOptions options;
    options.beta1 = 0.8;
    options.beta2 = 0.95;
    options.weight_decay = 0.05;
    AdamW optimizer(parameters, options);
    std::vector<double> p(n), m(n, 0.0), v(n, 0.0);
    for (int64_t i = 0; i < n; ++i) p[i] = element(parameters[0].master, i);
    for (int t = 1; t <= 3; ++t) {
      const at::Tensor grad = random_tensor(n, 10 + t, 0.3, dtype);
      optimizer.step(0.01, {grad}, 0.25);
      for (int64_t i = 0; i < n; ++i) {
        const double g = 0.25 * element(grad, i);
        p[i] -= 0.01 * 0.05 * p[i];
        m[i] = 0.8 * m[i] + 0.2 * g;
        v[i] = 0.95 * v[i] + 0.05 * g * g;
        p[i] -= 0.01 * (m[i] / (1.0 - std::pow(0.8, t))) / (std::sqrt(v[i] / (1.0 - std::pow(0.95, t))) + 1e-8);
      }
    }
    double worst = 0.0;
    for (int64_t i = 0; i < n; ++i) worst = std::max(worst, std::abs(p[i] - element(parameters[0].master, i)));
    CHECK_NEAR(worst, 0.0, tolerance);
  }
}

void test_thread_count_and_state() {
  const int64_t n = archer::kBlockSize * 9 + 11;
  std::vector<std::vector<Parameter>> runs;
  for (const int threads : {1, 2}) {
    at::set_num_threads(threads);
    std::vector<Parameter> parameters = {make_parameter("a", random_tensor(n, 1, 1.0, at::kFloat), true),
                                         make_parameter("b", random_tensor(33, 2, 1.0, at::kFloat), false)};
    AdamW optimizer(parameters, AdamWOptions{});
    for (uint32_t t = 0; t < 2; ++t) {
      optimizer.step(1e-3, {random_tensor(n, 3 + t, 1.0, at::kFloat), random_tensor(33, 5 + t, 1.0, at::kFloat)}, 0.7);
    }
    runs.push_back(parameters);
  }
  CHECK(at::equal(runs[0][0].master, runs[1][0].master));
  CHECK(at::equal(runs[0][1].master, runs[1][1].master));

  // One step, save, load into a fresh optimizer, a second step: bit for bit the uninterrupted run.
  std::vector<Parameter> parameters = {make_parameter("a", random_tensor(n, 1, 1.0, at::kFloat), true),
                                       make_parameter("b", random_tensor(33, 2, 1.0, at::kFloat), false)};
  AdamW before(parameters, AdamWOptions{});
  before.step(1e-3, {random_tensor(n, 3, 1.0, at::kFloat), random_tensor(33, 5, 1.0, at::kFloat)}, 0.7);
  AdamW after(parameters, AdamWOptions{});
  after.load_state(before.num_steps(), before.exp_avg(), before.exp_avg_sq());
  after.step(1e-3, {random_tensor(n, 4, 1.0, at::kFloat), random_tensor(33, 6, 1.0, at::kFloat)}, 0.7);
  CHECK(at::equal(parameters[0].master, runs[0][0].master));
  CHECK(at::equal(parameters[1].master, runs[0][1].master));
  CHECK(!at::equal(after.exp_avg()[0], before.exp_avg()[0]));  // copies, not views
}

void test_decay_only_where_it_decays() {
  for (const bool decay_all : {false, true}) {
    std::vector<Parameter> parameters = {make_parameter("matrix", tensor_of({1.0}, at::kDouble), true),
                                         make_parameter("norm", tensor_of({1.0}, at::kDouble), false)};
    AdamWOptions options;
    options.decay_all = decay_all;
    AdamW optimizer(parameters, options);
    const at::Tensor zero = tensor_of({0.0}, at::kDouble);
    optimizer.step(0.5, {zero, zero}, 1.0);
    CHECK_NEAR(element(parameters[0].master, 0), 0.95, 1e-15);
    CHECK_NEAR(element(parameters[1].master, 0), decay_all ? 0.95 : 1.0, 1e-15);
  }
}

template <typename Function>
std::string code_of(Function function) {
  try {
    function();
  } catch (const archer::ArcherError& error) {
    return error.code();
  }
  return "none";
}

void test_refusals() {
  std::vector<Parameter> parameters = {make_parameter("w", tensor_of({1.0, 2.0}, at::kFloat), true)};
  AdamWOptions bad;
  bad.beta2 = 1.0;
  CHECK(code_of([&] { AdamW optimizer(parameters, bad); }) == archer::kConfig);
  AdamW optimizer(parameters, AdamWOptions{});
  CHECK(code_of([&] { optimizer.step(1e-3, {}, 1.0); }) == archer::kShape);
  CHECK(code_of([&] { optimizer.step(1e-3, {tensor_of({1.0}, at::kFloat)}, 1.0); }) == archer::kShape);
  CHECK(code_of([&] { optimizer.step(1e-3, {tensor_of({1.0, 1.0}, at::kDouble)}, 1.0); }) == archer::kShape);
  CHECK(code_of([&] { optimizer.step(1e-3, {tensor_of({1.0, 1.0}, at::kFloat)}, std::nan("")); }) == archer::kConfig);
  const std::vector<at::Tensor> short_moments = {tensor_of({1.0}, at::kFloat)};
  CHECK(code_of([&] { optimizer.load_state(1, short_moments, short_moments); }) == archer::kShape);
  CHECK(optimizer.num_steps() == 0);
  check_all(parameters[0].master, {1.0, 2.0}, 0.0, 0.0);
  std::vector<Parameter> unloaded = {make_parameter("w", at::Tensor(), true)};
  CHECK(code_of([&] { AdamW another(unloaded, AdamWOptions{}); }) == archer::kShape);
}

}  // namespace

int main() {
  test_pytorch_numbers(at::kDouble);
  test_pytorch_numbers(at::kFloat);
  test_plain_loop(at::kDouble, 1e-14);
  test_plain_loop(at::kFloat, 1e-6);
  test_thread_count_and_state();
  test_decay_only_where_it_decays();
  test_refusals();
  return check::finish();
}
