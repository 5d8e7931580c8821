// The part of a CPU stand-in for a GPU that all interfaces over kernels/gpu_device.h share. Downloads happen at
// synchronize() or wait_for_mark() and no earlier, so that code which reads them too soon fails; new memory is NaN.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include "tests/gpu_emulation.h"
// After the primitives.
#include "kernels/gpu_device.h"

namespace archer {

// Interface: a descendant of GpuDevice.
template <typename Interface>
class EmulatedGpu : public Interface {
 public:
  EmulatedGpu(gpu::emulation::Order order, size_t capacity_bytes) : capacity_bytes_(capacity_bytes) {
    machine_.order = order;
  }
  ~EmulatedGpu() override {
    for (const auto& [memory, bytes] : allocated_) std::free(memory);
  }

  int num_synchronisations = 0, num_mark_waits = 0;
  size_t num_allocations() const { return allocated_.size(); }
  size_t peak_bytes() const { return peak_bytes_; }

  size_t free_bytes() override { return capacity_bytes_ > bytes_ ? capacity_bytes_ - bytes_ : 0; }
  void* allocate(size_t bytes) override {
    if (bytes > free_bytes()) throw DeviceError(DeviceError::Kind::out_of_memory, "the emulated device is full");
    void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(memory, 0xFF, bytes);
    allocated_[memory] = bytes;
    bytes_ += bytes;
    peak_bytes_ = bytes_ > peak_bytes_ ? bytes_ : peak_bytes_;
    return memory;
  }
  void release(void* memory) noexcept override {
    if (memory == nullptr) return;
    bytes_ -= allocated_[memory];
    allocated_.erase(memory);
    std::free(memory);
  }
  void upload(void* to, const void* from_host, size_t bytes) override {
    if (bytes > 0) std::memcpy(to, from_host, bytes);
  }
  void download(void* to_host, const void* from, size_t bytes) override {
    const char* data = static_cast<const char*>(from);
    downloads_.push_back({to_host, {data, data + bytes}});
  }
  void copy(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void zero(void* memory, size_t bytes) override {
    if (bytes > 0) std::memset(memory, 0, bytes);
  }
  void synchronize() override {
    finish_downloads(downloads_.size());
    ++num_synchronisations;
  }
  void* allocate_host(size_t bytes) override { return allocate(bytes); }
  void release_host(void* memory) noexcept override { release(memory); }
  void mark() override { marked_ = downloads_.size(); }
  void wait_for_mark() override {
    finish_downloads(marked_);
    ++num_mark_waits;
  }

 protected:
  void launch(int blocks, int threads, int cluster, size_t shared_bytes, const std::function<void()>& body) {
    if (blocks > 0) machine_.launch(blocks, threads, cluster, shared_bytes, body);
  }

 private:
  void finish_downloads(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      const auto& [to, data] = downloads_[i];
      if (!data.empty()) std::memcpy(to, data.data(), data.size());
    }
    downloads_.erase(downloads_.begin(), downloads_.begin() + static_cast<std::ptrdiff_t>(count));
    marked_ -= std::min(marked_, count);
  }

  gpu::emulation::Machine machine_;
  std::map<void*, size_t> allocated_;
  std::vector<std::pair<void*, std::vector<char>>> downloads_;
  size_t marked_ = 0, bytes_ = 0, peak_bytes_ = 0, capacity_bytes_;
};

}  // namespace archer
