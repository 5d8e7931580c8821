// The CUDA device of the decode engine: cuda_gpu.h with the kernels of decode.cu; captured work is a CUDA graph.
#pragma once
#include <memory>

#include "kernels/cuda_options.h"
#include "kernels/decode_device.h"

namespace archer {

// Throws DeviceError: `unavailable` with the reason where there is no driver, no fitting device or no cuBLAS.
std::unique_ptr<DecodeDevice> cuda_decode_device(const CudaGpuOptions& options = {});

}  // namespace archer
