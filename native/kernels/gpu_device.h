// What every user of a GPU asks of it: memory, and an order of the work. One stream: every call is queued behind the
// ones before it, and only synchronize() and wait_for_mark() wait. Device pointers of bfloat16 are uint16_t*.
// cuda_gpu.h answers with the runtime API, tests/emulated_gpu.h with the CPU.
#pragma once
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace archer {

class DeviceError : public std::runtime_error {
 public:
  enum class Kind { unavailable, out_of_memory, failed };
  DeviceError(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

class GpuDevice {
 public:
  virtual ~GpuDevice() = default;

  virtual size_t free_bytes() = 0;
  virtual void* allocate(size_t bytes) = 0;  // aligned to 256 bytes or more
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to, const void* from_host, size_t bytes) = 0;    // `from_host` may be reused at once
  virtual void download(void* to_host, const void* from, size_t bytes) = 0;  // complete after synchronize()
  virtual void copy(void* to, const void* from, size_t bytes) = 0;           // within the device; no overlap
  virtual void zero(void* memory, size_t bytes) = 0;
  virtual void synchronize() = 0;
  // Memory of the host that downloads reach without anybody waiting.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* memory) noexcept = 0;
  // wait_for_mark() waits for what had been queued at the last mark(), downloads to allocate_host() memory included,
  // while later work goes on.
  virtual void mark() = 0;
  virtual void wait_for_mark() = 0;
};

}  // namespace archer
