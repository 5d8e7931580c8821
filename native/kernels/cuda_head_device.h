// The CUDA device of the head: runtime API, the row kernels of head_rows.cu, and cuBLAS, which is loaded when a device
// is made, so that building needs neither its headers nor the library. Needs compute capability 8.0 or newer; clusters
// of blocks are used from 9.0 on.
#pragma once
#include <memory>
#include <string>

#include "kernels/head_device.h"

namespace archer {

struct CudaHeadOptions {
  int device = 0;
  void* stream = nullptr;   // a cudaStream_t of the caller, who keeps it alive; null: a stream of its own
  int cluster = -1;         // blocks per row of mode fused: 0 streaming, 1, 2, 4, 8; -1: planned from V
  std::string cublas_path;  // empty: libcublas of the process, or as the loader finds it
  size_t cublas_workspace_bytes = size_t{32} << 20;
};

// Throws DeviceError: `unavailable` with the reason where there is no driver, no fitting device or no cuBLAS.
std::unique_ptr<HeadDevice> cuda_head_device(const CudaHeadOptions& options = {});

}  // namespace archer
