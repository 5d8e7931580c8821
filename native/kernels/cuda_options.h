// How to open a CUDA device, for whatever it is opened for. Without CUDA's headers.
#pragma once
#include <cstddef>
#include <string>

namespace archer {

struct CudaGpuOptions {
  int device = 0;
  void* stream = nullptr;   // a cudaStream_t of the caller, who keeps it alive; null: a stream of its own
  std::string cublas_path;  // empty: libcublas of the process, or as the loader finds it
  size_t cublas_workspace_bytes = size_t{32} << 20;
};

}  // namespace archer
