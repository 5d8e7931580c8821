// The head on a GPU: the case lists of the CPU's emulation against float64, or with --bench the times. Needs neither
// libtorch nor Node. Exits with 77 and a reason where there is no GPU, driver or cuBLAS.
//   head_gpu [--cublas PATH]                          the case lists
//   head_gpu --bench [--pairs N] [--json FILE]        times at the shapes of Qwen2.5-1.5B and SmolLM2-135M
#include <cstring>
#include <exception>
#include <map>

#include "kernels/cuda_head_device.h"
#include "tests/cuda/head_bench.h"
#include "tests/head_loss_cases.h"

using namespace archer;

namespace {

struct Gpu {
  std::string name;
  size_t shared_bytes = 0;
  bool has_clusters = false;
};

Gpu describe() {
  cudaDeviceProp properties{};
  cudaGetDeviceProperties(&properties, 0);
  return {properties.name, properties.sharedMemPerBlockOptin, properties.major >= 9};
}

// One device per way of cutting the rows, made when it is first asked for.
class Devices {
 public:
  explicit Devices(const std::string& cublas_path) : cublas_path_(cublas_path) {}
  HeadDevice& with_cluster(int cluster) {
    auto& device = devices_[cluster];
    if (!device) {
      CudaHeadOptions options;
      options.cluster = cluster;
      options.cublas_path = cublas_path_;
      device = cuda_head_device(options);
    }
    return *device;
  }

 private:
  std::string cublas_path_;
  std::map<int, std::unique_ptr<HeadDevice>> devices_;
};

int run_cases(const std::string& cublas_path) {
  const Gpu gpu = describe();
  Devices devices(cublas_path);
  row_cases::Worst worst;
  int num_run = 0, num_unfit = 0;
  auto cases = row_cases::case_list();
  const auto large = row_cases::large_cases();
  cases.insert(cases.end(), large.begin(), large.end());
  for (const auto& c : cases) {
    const bool fits = c.cluster == 0 || (resident_bytes(c.vocabulary, c.cluster, c.type) <= gpu.shared_bytes &&
                                         (c.cluster == 1 || gpu.has_clusters));
    if (!fits) {
      ++num_unfit;
      continue;
    }
    row_cases::check_case(devices.with_cluster(c.cluster), c, worst);
    ++num_run;
  }
  std::printf("%s: %d row cases (%d more do not fit it): |logp| %.2g, |H| %.2g, gradient beyond rounding %.2g\n",
              gpu.name.c_str(), num_run, num_unfit, worst.log_prob, worst.entropy, worst.gradient);
  head_cases::check_all(devices.with_cluster(-1), 131, 8);
  head_cases::check_all(devices.with_cluster(-1), 1000, 64);
  head_cases::check_all(devices.with_cluster(0), 1003, 24);
  return check::finish();
}

}  // namespace

int main(int argc, char** argv) {
  bool benchmark = false;
  bench::Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : nullptr;
    if (word == "--bench") {
      benchmark = true;
    } else if (word == "--pairs" && value) {
      options.pairs = std::max(1, std::atoi(argv[++i]));
    } else if (word == "--json" && value) {
      options.json = argv[++i];
    } else if (word == "--cublas" && value) {
      options.cublas_path = argv[++i];
    } else {
      std::printf("usage: head_gpu [--bench [--pairs N] [--json FILE]] [--cublas PATH]\n");
      return 2;
    }
  }
  try {
    CudaHeadOptions probe;
    probe.cublas_path = options.cublas_path;
    cuda_head_device(probe);
  } catch (const DeviceError& error) {
    if (error.kind() == DeviceError::Kind::unavailable) {
      std::printf("skipped: %s\n", error.what());
      return 77;
    }
    std::printf("%s\n", error.what());
    return 1;
  }
  try {
    return benchmark ? bench::run(options) : run_cases(options.cublas_path);
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
