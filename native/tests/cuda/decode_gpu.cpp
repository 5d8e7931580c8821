// Generation on a GPU: the case list of the CPU's emulation against float64, the engine and whole generations against
// themselves over the emulation, or with --bench the times. Needs neither libtorch nor Node. Exits with 77 and a reason where there is no
// GPU, driver or cuBLAS.
//   decode_gpu [--cublas PATH]                          the case lists
//   decode_gpu --bench [--pairs N] [--json FILE]        decoding at batch 1, 32, 256 and 1k and 4k context, prefill, and a
//                                                       whole generation, shape of Qwen2.5-1.5B
#include "tests/emulated_decode_device.h"
// After the emulation's primitives.
#include <cstdlib>
#include <cstring>
#include <exception>

#include "tests/cuda/generation_bench.h"
#include "tests/decode_engine_cases.h"
#include "tests/decode_kernel_cases.h"

using namespace archer;

namespace {

int run_cases(DecodeDevice& device) {
  const auto same = [&]() -> DecodeDevice& { return device; };
  decode_cases::check_kernels(same);
  decode_cases::check_large(same);
  for (const bool qwen2 : {true, false}) {
    EmulatedDecodeDevice reference;
    decode_cases::check_engine(device, reference, qwen2);
    decode_cases::check_generation(device, reference, qwen2);
  }
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
      std::printf("usage: decode_gpu [--bench [--pairs N] [--json FILE]] [--cublas PATH]\n");
      return 2;
    }
  }
  try {
    CudaGpuOptions device_options;
    device_options.cublas_path = options.cublas_path;
    const auto device = cuda_decode_device(device_options);
    return benchmark ? bench::run(options) : run_cases(*device);
  } catch (const DeviceError& error) {
    const bool unavailable = error.kind() == DeviceError::Kind::unavailable;
    std::printf("%s%s\n", unavailable ? "skipped: " : "", error.what());
    return unavailable ? 77 : 1;
  } catch (const std::exception& error) {
    std::printf("%s\n", error.what());
    return 1;
  }
}
