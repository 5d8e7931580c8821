// The CUDA device of training: cuda_gpu.h with the kernels of layer_rows.cu.
#pragma once
#include <memory>

#include "kernels/cuda_options.h"
#include "kernels/layer_device.h"

namespace archer {

// Throws DeviceError: `unavailable` with the reason where there is no driver, no fitting device or no cuBLAS.
std::unique_ptr<LayerDevice> cuda_layer_device(const CudaGpuOptions& options = {});

}  // namespace archer
