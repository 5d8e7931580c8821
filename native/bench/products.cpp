// archer-bench-products: the rate of a model's matrix products on this machine, as a contestant of `archer-native bench update`:
//   archer-bench-products --threads 1 --dtype bf16 --products 1024x576x576,1024x1536x576
//       in:  run | quit       out: {"event":"run","seconds":…,"1024x576x576":…,…}
// Of every layer R x N x K: x_RK wᵀ_NK, dy_RN w_NK and dyᵀ_RN x_RK together, each by its fastest kernel and number of rows
// (gemm_floor.h), in seconds, the best of several tries in every run. lib/bench/products.ts makes the rate of a model out of them.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "bench/gemm_floor.h"
#include "bench/machine.h"
#include "bench/process_stats.h"
#include "core/error.h"

namespace {

using namespace archer;
using namespace archer::bench;

constexpr double kLeastSeconds = 0.03;  // of tries in one run, per layer

struct Layer {
  std::string name;
  int64_t rows = 0, outputs = 0, inputs = 0;
};

struct Options {
  bool bf16 = true;
  int64_t threads = 1;
  std::vector<Layer> layers;
};

Layer parse_layer(const std::string& name) {
  Layer layer{name};
  int end = 0;
  const int read = std::sscanf(name.c_str(), "%9ldx%9ldx%9ld%n", &layer.rows, &layer.outputs, &layer.inputs, &end);
  require(read == 3 && static_cast<size_t>(end) == name.size() && layer.rows > 0 && layer.outputs > 0 && layer.inputs > 0,
          kConfig, "--products " + name + ": write rows x outputs x inputs as in 1024x1536x576.");
  return layer;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string name = argv[i];
    if (name == "--machine") {
      std::printf("%s\n", machine_json().c_str());
      std::exit(0);
    }
    require(name == "--dtype" || name == "--threads" || name == "--products", kConfig,
            name + " is not an option; there are --threads, --dtype, --products and --machine.");
    require(i + 1 < argc, kConfig, name + " needs a value.");
    const std::string value = argv[++i];
    if (name == "--dtype") {
      require(value == "bf16" || value == "float32", kConfig, "--dtype is " + value + "; it must be bf16 or float32.");
      options.bf16 = value == "bf16";
    } else if (name == "--threads") {
      const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), options.threads);
      require(error == std::errc() && *end == '\0' && options.threads >= 1, kConfig,
              "--threads is " + value + "; it must be a whole number of at least 1.");
    } else {
      for (size_t begin = 0; begin <= value.size();) {
        const size_t comma = std::min(value.find(',', begin), value.size());
        options.layers.push_back(parse_layer(value.substr(begin, comma - begin)));
        begin = comma + 1;
      }
    }
  }
  require(!options.layers.empty(), kConfig, "--products is missing.");
  return options;
}

at::Tensor random_matrix(int64_t rows, int64_t columns, at::ScalarType dtype) {
  return at::empty({rows, columns}, at::TensorOptions().dtype(dtype)).normal_();
}

double best_seconds(GemmFloor& products) {
  double best = std::numeric_limits<double>::infinity();
  const double began = wall_seconds();
  do best = std::min(best, products.run());
  while (wall_seconds() - began < kLeastSeconds);
  return best;
}

void print_line(const std::string& line) {
  std::printf("%s\n", line.c_str());
  std::fflush(stdout);
}

void print_error(const std::string& code, const std::string& message) {
  print_line("{\"event\": \"error\", \"code\": " + json_text(code) + ", \"message\": " + json_text(message) + "}");
}

void serve(const Options& options) {
  at::set_num_threads(static_cast<int>(options.threads));
  const at::ScalarType dtype = options.bf16 ? at::kBFloat16 : at::kFloat;
  std::vector<std::unique_ptr<GemmFloor>> products;
  std::string details;
  for (const Layer& layer : options.layers) {
    products.push_back(std::make_unique<GemmFloor>(random_matrix(layer.rows, layer.inputs, dtype),
                                                   random_matrix(layer.outputs, layer.inputs, dtype)));
    products.back()->choose();
    details += (details.empty() ? "" : ", ") + json_text(layer.name) + ": " + products.back()->description_json();
  }
  print_line("{\"event\": \"ready\", \"protocol\": 1, \"name\": \"gemm-rate\", \"details\": {" + details + "}}");
  for (std::string line; std::getline(std::cin, line);) {
    if (line == "quit") return;
    if (line != "run") {
      print_error(kConfig, "The command " + line + " is not known; send run or quit.");
      continue;
    }
    const double began = wall_seconds(), cpu_began = cpu_seconds();
    std::string seconds;
    for (size_t i = 0; i < products.size(); ++i) {
      seconds += ", " + json_text(options.layers[i].name) + ": " + json_number(best_seconds(*products[i]));
    }
    print_line("{\"event\": \"run\", \"seconds\": " + json_number(wall_seconds() - began) +
               ", \"cpu_seconds\": " + json_number(cpu_seconds() - cpu_began) + seconds + "}");
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
