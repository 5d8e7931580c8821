// The decode step's kernels, their own source run thread by thread on the CPU (gpu_emulation.h), against float64.
#include "tests/emulated_decode_device.h"
// After the emulation's primitives.
#include <memory>

#include "tests/decode_kernel_cases.h"

using namespace archer;

int main() {
  std::unique_ptr<EmulatedDecodeDevice> device;
  int turn = 0;
  const auto next = [&](bool full_blocks) -> DecodeDevice& {
    device = std::make_unique<EmulatedDecodeDevice>(static_cast<gpu::emulation::Order>(turn++ % 4), full_blocks);
    return *device;
  };
  decode_cases::check_kernels([&]() -> DecodeDevice& { return next(false); });
  decode_cases::check_large([&]() -> DecodeDevice& { return next(true); });
  return check::finish();
}
