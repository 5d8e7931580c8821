#include "core/gpu.h"

#include <ATen/Context.h>
#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <array>
#include <utility>

#include "core/error.h"
#ifdef ARCHER_CUDA_KERNELS
#include "kernels/cuda_decode_device.h"
#include "kernels/cuda_head_device.h"
#include "kernels/cuda_layer_device.h"
#endif

namespace archer {
namespace {

std::array<Gpu, c10::COMPILE_TIME_MAX_DEVICE_TYPES>& gpus() {
  static std::array<Gpu, c10::COMPILE_TIME_MAX_DEVICE_TYPES> all;
  return all;
}

#ifdef ARCHER_CUDA_KERNELS
Gpu open_cuda() {
  require(at::globalContext().hasCUDA(), kDevice,
          "device is cuda, but this libtorch sees no GPU: it is a build for the CPU, or the driver is missing. Point ARCHER_LIBTORCH at a "
          "PyTorch with CUDA (docs/cuda.md) and run archer-native setup, or set device: cpu");
  // libtorch's stream: cudaStreamLegacy by its value.
  void* const stream = reinterpret_cast<void*>(uintptr_t{1});
  CudaGpuOptions layers;
  CudaHeadOptions head;
  layers.stream = head.stream = stream;
  return {cuda_layer_device(layers), cuda_head_device(head), cuda_decode_device()};
}
#else
Gpu open_cuda() {
  throw ArcherError(kDevice,
                    "device is cuda, but this addon was built without the CUDA kernels. Install the CUDA toolkit (nvcc), point "
                    "ARCHER_LIBTORCH at a PyTorch with CUDA (docs/cuda.md) and run archer-native setup, or set device: cpu");
}
#endif

}  // namespace

Gpu* gpu_of(at::Device device) {
  Gpu& gpu = gpus()[static_cast<size_t>(device.type())];
  return gpu.layers ? &gpu : nullptr;
}

void register_gpu(at::DeviceType type, Gpu gpu) { gpus()[static_cast<size_t>(type)] = std::move(gpu); }

at::Device open_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  require(name == "cuda", kConfig, "device must be cpu or cuda, not " + name);
  const at::Device device(at::kCUDA, 0);
  if (!gpu_of(device)) register_gpu(at::kCUDA, open_cuda());
  return device;
}

int64_t free_gpu_bytes(at::Device device) { return static_cast<int64_t>(gpu_of(device)->layers->free_bytes()); }

at::Tensor upload_bytes(at::Device device, const void* values, size_t bytes) {
  at::Tensor memory = at::empty({static_cast<int64_t>(bytes)}, at::TensorOptions(at::kByte).device(device));
  gpu_of(device)->layers->upload(memory.mutable_data_ptr(), values, bytes);
  return memory;
}

void release_cached_memory(at::Device device) {
  gpu_of(device)->layers->synchronize();
  // The emulated GPU's allocator keeps nothing.
  if (auto* const caching = dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()))) caching->emptyCache();
}

}  // namespace archer
