// Clocks of the GPU programs: of the host, and of the stream between two events.
#pragma once
#include <cuda_runtime_api.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "kernels/gpu_device.h"

namespace archer::bench {

inline void check_cuda(cudaError_t error) {
  if (error != cudaSuccess) throw DeviceError(DeviceError::Kind::failed, cudaGetErrorString(error));
}

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

// Milliseconds between the calls, for work that ends with a wait.
template <typename Body>
double wall_ms(Body body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

// Milliseconds of one piece of queued work on the stream.
template <typename Body>
double event_ms(cudaStream_t stream, Body body) {
  cudaEvent_t begin, end;
  check_cuda(cudaEventCreate(&begin));
  check_cuda(cudaEventCreate(&end));
  check_cuda(cudaEventRecord(begin, stream));
  body();
  check_cuda(cudaEventRecord(end, stream));
  check_cuda(cudaEventSynchronize(end));
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return static_cast<double>(ms);
}

}  // namespace archer::bench
