// GPUs as the rooms know them that know tensors. A tensor's device says where it is computed on: every function over tensors that has
// a kernel for both asks gpu_of() and goes on with its twin in a gpu_*.h. On a GPU there is bfloat16 alone (float32 where sums and
// gradients are). Memory and copies between host and device are libtorch's; all work is queued on its stream, the default one.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "kernels/decode_device.h"
#include "kernels/head_device.h"
#include "kernels/layer_device.h"

namespace archer {

struct Gpu {
  std::unique_ptr<LayerDevice> layers;
  std::unique_ptr<HeadDevice> head;
  std::unique_ptr<DecodeDevice> decode;  // with a stream of its own: none that is captured may be the default one
};

// Null for a tensor in the processor's own memory.
Gpu* gpu_of(at::Device device);
inline Gpu* gpu_of(const at::Tensor& tensor) { return tensor.is_cpu() ? nullptr : gpu_of(tensor.device()); }
// From now on tensors of this type of device are computed on by `gpu`.
void register_gpu(at::DeviceType type, Gpu gpu);

// "cpu" or "cuda", whose first GPU is opened where it has not been yet; ARCHER_E_DEVICE with the reason where that fails.
at::Device open_device(const std::string& name);
// Memory of the GPU that nothing holds, libtorch's own reserves included.
int64_t free_gpu_bytes(at::Device device);

// What the host has computed, as bytes on the device: queued, nobody waits.
at::Tensor upload_bytes(at::Device device, const void* values, size_t bytes);
template <typename T>
at::Tensor upload(at::Device device, const std::vector<T>& values) {
  return upload_bytes(device, values.data(), values.size() * sizeof(T));
}

template <typename T>
T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}
inline uint16_t* bf16(const at::Tensor& tensor) { return pointer<uint16_t>(tensor); }

// Gives memory of the GPU that libtorch keeps for later tensors back, for whoever takes it past libtorch. Waits for the GPU.
void release_cached_memory(at::Device device);

}  // namespace archer
