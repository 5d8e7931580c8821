// Models on the emulated GPU.
#pragma once
#include "tests/emulated_decode_device.h"
#include "tests/emulated_device.h"
#include "tests/emulated_layer_device.h"
// After the emulation's primitives.
#include "tests/emulated_torch_device.h"

#include "model_fixture.h"

namespace fixture {

using namespace archer;

inline void use_emulated_gpu(gpu::emulation::Order order) {
  EmulatedOptions options;
  options.order = order;
  register_gpu(at::DeviceType::PrivateUse1, {std::make_unique<EmulatedLayerDevice>(order), std::make_unique<EmulatedDevice>(options),
                                             std::make_unique<EmulatedDecodeDevice>(order)});
}

inline Transformer to_gpu(const Transformer& model, const Lora& lora = {}) {
  Transformer copy(model.config(), at::kBFloat16, true, lora, emulated::kGpu);
  for (const Parameter& parameter : model.all()) {
    copy.load(parameter.name, parameter.master.defined() ? parameter.master : parameter.compute);
  }
  return copy;
}

}  // namespace fixture
