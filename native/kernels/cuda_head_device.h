// The CUDA device of the head: cuda_gpu.h with the row kernels of head_rows.cu. Clusters of blocks are used from
// compute capability 9.0 on.
#pragma once
#include <memory>

#include "kernels/cuda_options.h"
#include "kernels/head_device.h"

namespace archer {

struct CudaHeadOptions : CudaGpuOptions {
  int cluster = -1;         // blocks per row of mode fused: 0 streaming, 1, 2, 4, 8; -1: planned from V
};

// Throws DeviceError: `unavailable` with the reason where there is no driver, no fitting device or no cuBLAS.
std::unique_ptr<HeadDevice> cuda_head_device(const CudaHeadOptions& options = {});

}  // namespace archer
