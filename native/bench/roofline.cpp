// archer-bench-roofline: what bounds sampling on this machine, as a contestant of `archer-native bench rollout`:
//   archer-bench-roofline --threads 1 --dtype bf16 --bytes 269000000 --hidden 576 --columns 1536
//       in:  run | quit       out: {"event":"run","seconds":…,"bytes_per_second":…,"flops_per_second":…}
// bytes_per_second: a block of the weights' size is read by all threads. flops_per_second: hidden_RH · weight_CHᵀ by the
// fastest kernel and number of rows R. Both are the best of several tries in every run. lib/bench/roofline.ts makes the
// floor time out of them.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "bench/gemm_floor.h"
#include "bench/machine.h"
#include "bench/process_stats.h"
#include "bench/read_memory.h"
#include "core/error.h"

namespace {

using namespace archer;
using namespace archer::bench;

constexpr double kLeastSeconds = 0.1;  // of tries in one run, each of both rates
constexpr int64_t kLine = 256;         // bytes that read_memory takes at once
constexpr int64_t kRows[] = {64, 256, 512};

struct Options {
  bool bf16 = true;
  int64_t threads = 1, bytes = int64_t{256} << 20, hidden = 576, columns = 1536;
};

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string, int64_t*> numbers = {{"--threads", &options.threads},
                                                   {"--bytes", &options.bytes},
                                                   {"--hidden", &options.hidden},
                                                   {"--columns", &options.columns}};
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--machine") {
      std::printf("%s\n", machine_json().c_str());
      std::exit(0);
    }
    require(name == "--dtype" || numbers.count(name), kConfig,
            name + " is not an option; there are --threads, --dtype, --bytes, --hidden, --columns and --machine.");
    require(i + 1 < argc, kConfig, name + " needs a value.");
    const std::string value = argv[++i];
    if (name == "--dtype") {
      require(value == "bf16" || value == "float32", kConfig, "--dtype is " + value + "; it must be bf16 or float32.");
      options.bf16 = value == "bf16";
      continue;
    }
    int64_t& number = *numbers.at(name);
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    require(error == std::errc() && *end == '\0' && number >= 1, kConfig,
            name + " is " + value + "; it must be a whole number of at least 1.");
  }
  return options;
}

class Roofline {
 public:
  explicit Roofline(const Options& options)
      : threads_(options.threads),
        share_((options.bytes + options.threads * kLine - 1) / (options.threads * kLine) * kLine),
        memory_(at::empty({options.threads * share_ + 64}, at::TensorOptions().dtype(at::kByte))) {
    const auto address = reinterpret_cast<uintptr_t>(memory_.data_ptr());
    begin_ = static_cast<char*>(memory_.data_ptr()) + (64 - address % 64) % 64;
    for_each_share([&](int64_t thread) { std::memset(begin_ + thread * share_, 1 + static_cast<int>(thread), share_); });
    choose_product(options);
  }

  double bytes_per_second() {
    double best = std::numeric_limits<double>::infinity();
    const double began = wall_seconds();
    for (int i = 0; i < 4 || wall_seconds() - began < kLeastSeconds; ++i) {
      const double from = wall_seconds();
      for_each_share([&](int64_t thread) { sink_ += read_memory(begin_ + thread * share_, share_, i % 2 == 1); });
      best = std::min(best, wall_seconds() - from);
    }
    return static_cast<double>(threads_ * share_) / best;
  }

  double flops_per_second() {
    double best = std::numeric_limits<double>::infinity();
    const double began = wall_seconds();
    for (int i = 0; i < 3 || wall_seconds() - began < kLeastSeconds; ++i) best = std::min(best, time(product_));
    return product_.flops / best;
  }

  std::string details() const {
    return "{\"kernel\": " + json_text(product_.candidate.name) + ", \"rows\": " +
           std::to_string(product_.hidden_RH.size(0)) + "}";
  }

 private:
  struct Product {
    GemmCandidate candidate;
    at::Tensor hidden_RH, result_RC;
    double flops = 0;
  };

  template <typename Body>
  void for_each_share(Body body) const {
    at::parallel_for(0, threads_, 1, [&](int64_t first, int64_t past) {
      for (int64_t thread = first; thread < past; ++thread) body(thread);
    });
  }

  double time(Product& product) {
    const double from = wall_seconds();
    product.candidate.run(product.hidden_RH, weight_CH_, product.result_RC);
    return wall_seconds() - from;
  }

  void choose_product(const Options& options) {
    const at::ScalarType dtype = options.bf16 ? at::kBFloat16 : at::kFloat;
    weight_CH_ = at::randn({options.columns, options.hidden}, at::kFloat).to(dtype);
    double best = 0;
    for (const GemmCandidate& candidate : gemm_candidates(dtype)) {
      if (candidate.product != HeadProduct::logits) continue;
      for (const int64_t rows : kRows) {
        Product product{candidate, at::randn({rows, options.hidden}, at::kFloat).to(dtype),
                        at::empty({rows, options.columns}, at::TensorOptions().dtype(candidate.output)),
                        2.0 * static_cast<double>(rows * options.hidden * options.columns)};
        double seconds = time(product);
        for (int i = 0; i < 3; ++i) seconds = std::min(seconds, time(product));
        if (product.flops / seconds > best) {
          best = product.flops / seconds;
          product_ = product;
        }
      }
    }
  }

  int64_t threads_, share_;
  at::Tensor memory_, weight_CH_;
  char* begin_ = nullptr;
  Product product_;
  std::atomic<uint64_t> sink_{0};
};

void print_line(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void print_error(const std::string& code, const std::string& message) {
  print_line("{\"event\": \"error\", \"code\": " + json_text(code) + ", \"message\": " + json_text(message) + "}");
}

void serve(const Options& options) {
  at::set_num_threads(static_cast<int>(options.threads));
  Roofline roofline(options);
  print_line("{\"event\": \"ready\", \"protocol\": 1, \"name\": \"roofline\", \"details\": " + roofline.details() + "}");
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") return;
    if (line != "run") {
      print_error(kConfig, "The command " + line + " is not known; send run or quit.");
      continue;
    }
    const double began = wall_seconds(), cpu_began = cpu_seconds();
    const double bytes = roofline.bytes_per_second(), flops = roofline.flops_per_second();
    print_line("{\"event\": \"run\", \"seconds\": " + json_number(wall_seconds() - began) +
               ", \"cpu_seconds\": " + json_number(cpu_seconds() - cpu_began) +
               ", \"bytes_per_second\": " + json_number(bytes) + ", \"flops_per_second\": " + json_number(flops) + "}");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    serve(parse(argc, argv));
    return 0;
  } catch (const std::exception& error) {
    const auto* ours = dynamic_cast<const ArcherError*>(&error);
    const std::string code = ours ? ours->code() : kInternal;
    print_error(code, error.what());
    std::fprintf(stderr, "%s %s\n", code.c_str(), error.what());
    return code == kConfig ? 2 : 1;
  }
}
