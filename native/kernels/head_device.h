// What the head's loop (head/head_loss.h) asks of a device: memory, the three products, the row kernels. One stream:
// every call is queued behind the ones before it, and only synchronize() and wait_for_mark() wait. Device pointers of
// bfloat16 are uint16_t*. Legend: R rows of a chunk, H hidden size, V vocabulary. cuda_head_device() makes the one for
// CUDA; the tests have one that runs on the CPU.
#pragma once
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "kernels/head_rows.h"

namespace archer {

class DeviceError : public std::runtime_error {
 public:
  enum class Kind { unavailable, out_of_memory, failed };
  DeviceError(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const noexcept { return kind_; }

 private:
  Kind kind_;
};

class HeadDevice {
 public:
  virtual ~HeadDevice() = default;

  virtual size_t free_bytes() = 0;
  virtual void* allocate(size_t bytes) = 0;  // aligned to 256 bytes or more
  virtual void release(void* memory) noexcept = 0;
  virtual void upload(void* to, const void* from_host, size_t bytes) = 0;    // `from_host` may be reused at once
  virtual void download(void* to_host, const void* from, size_t bytes) = 0;  // complete after synchronize()
  virtual void zero(void* memory, size_t bytes) = 0;
  virtual void synchronize() = 0;
  // Memory of the host that downloads reach without anybody waiting.
  virtual void* allocate_host(size_t bytes) = 0;
  virtual void release_host(void* memory) noexcept = 0;
  // wait_for_mark() waits for what had been queued at the last mark(), downloads to allocate_host() memory included,
  // while later work goes on.
  virtual void mark() = 0;
  virtual void wait_for_mark() = 0;

  // logits_RV = hidden_RH head_VH^T, summed in float32; `stride` elements from row to row.
  virtual void multiply_logits(const uint16_t* hidden_RH, const uint16_t* head_VH, void* logits, LogitsType type,
                               int64_t stride, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) = 0;
  // grad_RH = dlogits_RV head_VH; grad_RH is float32 or bfloat16. `stride` in elements of bfloat16.
  virtual void multiply_grad_hidden(const uint16_t* dlogits, int64_t stride, const uint16_t* head_VH, void* grad_RH,
                                    bool grad_is_float, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) = 0;
  // grad_VH += dlogits_RV^T hidden_RH in float32.
  virtual void multiply_grad_head(const uint16_t* dlogits, int64_t stride, const uint16_t* hidden_RH, float* grad_VH,
                                  int64_t num_rows, int64_t hidden_size, int64_t vocabulary) = 0;

  virtual void run_rows(HeadRowsMode mode, const HeadRowsParams& params) = 0;
  virtual void copy_rows(const CopyRowsParams& params) = 0;
};

}  // namespace archer
