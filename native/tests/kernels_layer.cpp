// The kernels of training, their own source run thread by thread on the CPU (gpu_emulation.h), against float64.
#include "tests/emulated_layer_device.h"
// After the emulation's primitives.
#include <memory>

#include "tests/layer_kernel_cases.h"

using namespace archer;

int main() {
  std::unique_ptr<EmulatedLayerDevice> device;
  int turn = 0;
  layer_cases::check_kernels([&]() -> LayerDevice& {
    const auto order = static_cast<gpu::emulation::Order>(turn % 4);
    device = std::make_unique<EmulatedLayerDevice>(order, turn++ % 5 == 4);
    return *device;
  });
  return check::finish();
}
