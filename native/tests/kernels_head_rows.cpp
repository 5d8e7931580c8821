// The head's row kernels, their own source run thread by thread on the CPU (gpu_emulation.h), against float64.
#include "tests/emulated_device.h"
// After the emulation's primitives.
#include "kernels/softmax_rows.h"
#include "tests/head_row_cases.h"

using namespace archer;

namespace {

void kernels_against_float64() {
  row_cases::Worst worst;
  const auto cases = row_cases::case_list();
  int turn = 0;
  for (const auto& c : cases) {
    EmulatedOptions options;
    options.cluster = c.cluster;
    options.order = static_cast<gpu::emulation::Order>(turn++ % 4);
    EmulatedDevice device(options);
    row_cases::check_case(device, c, worst);
    CHECK(device.num_allocations() == 0);
  }
  std::printf("%zu cases of 64 threads: |logp| %.2g, |H| %.2g, gradient beyond rounding %.2g\n", cases.size(),
              worst.log_prob, worst.entropy, worst.gradient);
}

void large_vocabularies() {
  row_cases::Worst worst;
  const auto cases = row_cases::large_cases();
  for (const auto& c : cases) {
    EmulatedOptions options;
    options.cluster = c.cluster;
    options.threads = kHeadRowsThreads;
    options.order = gpu::emulation::Order::first_block;
    EmulatedDevice device(options);
    row_cases::check_case(device, c, worst);
  }
  std::printf("%zu cases of %d threads: |logp| %.2g, |H| %.2g, gradient beyond rounding %.2g\n", cases.size(),
              kHeadRowsThreads, worst.log_prob, worst.entropy, worst.gradient);
}

// What fits where: shared memory of one block on an H200 (227 KiB) and an A100 (163 KiB, no clusters).
void plans() {
  const size_t h200 = size_t{227} << 10, a100 = size_t{163} << 10;
  const auto cluster = [](int64_t vocabulary, LogitsType type, size_t bytes, int most) {
    return plan_head_rows(HeadRowsMode::fused, vocabulary, type, bytes, most).cluster;
  };
  CHECK(cluster(151936, LogitsType::float32, h200, 8) == 4);
  CHECK(cluster(151936, LogitsType::bfloat16, h200, 8) == 2);
  CHECK(cluster(49152, LogitsType::float32, h200, 8) == 1);
  CHECK(cluster(49152, LogitsType::bfloat16, a100, 1) == 1);
  CHECK(cluster(49152, LogitsType::float32, a100, 1) == 0);
  CHECK(cluster(1000000, LogitsType::float32, h200, 8) == 0);
  CHECK(cluster(1, LogitsType::float32, h200, 8) == 1);
  CHECK(plan_head_rows(HeadRowsMode::statistics, 1000, LogitsType::float32, h200, 8).cluster == 0);
  CHECK(resident_bytes(151936, 4, LogitsType::float32) == 1024 + 37984 * 4);
}

// The two float64 rows of this repository agree: the CPU's reference and the one that the kernels are held against.
void float64_rows_agree() {
  row_cases::RowCase c;
  c.vocabulary = 203;
  for (const auto& spec : row_cases::make_rows(c, 3)) {
    if (spec.id < 0 || spec.id >= c.vocabulary) continue;
    const std::vector<double> logits(spec.logits.begin(), spec.logits.end());
    const ExactRow ours = exact_row(logits.data(), c.vocabulary, spec.id, 0.8);
    const SoftmaxRow<double> cpus =
        softmax_row(logits.data(), c.vocabulary, spec.id, 0.8, static_cast<double*>(nullptr));
    CHECK(std::isnan(ours.entropy) == std::isnan(cpus.entropy));
    if (std::isnan(ours.entropy)) continue;
    CHECK_NEAR(ours.entropy, cpus.entropy, 1e-10);
    CHECK(ours.log_prob == cpus.log_prob || std::abs(ours.log_prob - cpus.log_prob) <= 1e-10 * (1 - ours.log_prob));
  }
}

// Rows that a launch leaves out, and a launch without rows.
void nothing_to_do() {
  EmulatedDevice device;
  HeadRowsParams none;
  device.run_rows(HeadRowsMode::fused, none);
  device.copy_rows(CopyRowsParams{});
}

void row_copies() {
  for (const int64_t width : {1, 7, 8, 24, 1000}) {  // elements of 2 bytes
    EmulatedDevice device;
    std::vector<uint16_t> from(static_cast<size_t>(6 * width)), to(static_cast<size_t>(6 * (width + 8)), 9);
    for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint16_t>(i + 100);
    DeviceArray<uint16_t> d_from(device, from), d_to(device, to);
    DeviceArray<int32_t> d_index(device, std::vector<int32_t>{5, 0, 3});
    CopyRowsParams p;
    p.to = d_to.get();
    p.from = d_from.get();
    p.to_pitch = (width + 8) * 2;
    p.from_pitch = p.row_bytes = width * 2;
    p.num_rows = 3;
    const auto check_copies = [&](std::vector<int> targets, std::vector<int> sources) {
      device.upload(d_to.get(), to.data(), to.size() * 2);
      device.copy_rows(p);
      const auto got = d_to.read();
      std::vector<uint16_t> expected = to;
      for (size_t j = 0; j < targets.size(); ++j) {
        for (int64_t i = 0; i < width; ++i)
          expected[static_cast<size_t>(targets[j] * (width + 8) + i)] =
              from[static_cast<size_t>(sources[j] * width + i)];
      }
      CHECK(got == expected);
    };
    check_copies({0, 1, 2}, {0, 1, 2});
    p.from_rows = d_index.get();
    check_copies({0, 1, 2}, {5, 0, 3});
    p.from_rows = nullptr;
    p.to_rows = d_index.get();
    check_copies({5, 0, 3}, {0, 1, 2});
  }
}

}  // namespace

int main() {
  plans();
  float64_rows_agree();
  nothing_to_do();
  row_copies();
  kernels_against_float64();
  large_vocabularies();
  return check::finish();
}
