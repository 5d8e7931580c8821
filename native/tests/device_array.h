// Memory of a device, released with it.
#pragma once
#include <vector>

#include "kernels/gpu_device.h"

namespace archer {

template <typename T>
class DeviceArray {
 public:
  DeviceArray(GpuDevice& device, const std::vector<T>& host) : device_(device), size_(host.size()) {
    data_ = static_cast<T*>(device.allocate(size_ * sizeof(T) + 16));
    device.upload(data_, host.data(), size_ * sizeof(T));
  }
  ~DeviceArray() { device_.release(data_); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  T* get() { return data_; }
  std::vector<T> read() {
    std::vector<T> host(size_);
    device_.download(host.data(), data_, size_ * sizeof(T));
    device_.synchronize();
    return host;
  }

 private:
  GpuDevice& device_;
  size_t size_;
  T* data_;
};

}  // namespace archer
