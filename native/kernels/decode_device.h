// What the decode engine (decode/engine.h) asks of a device beyond gpu_device.h: products, the kernels of decode_ops.h,
// and captured work. cuda_decode_device() makes the one for CUDA; the tests have one that runs on the CPU.
#pragma once
#include <functional>

#include "kernels/decode_ops.h"
#include "kernels/gpu_device.h"

namespace archer {

class DecodeDevice : public GpuDevice {
 public:
  // out_BN = x_BI weight_NI^T, summed in float32; `out` is float32 or bfloat16, `stride` elements from row to row.
  virtual void linear(const uint16_t* x_BI, const uint16_t* weight_NI, void* out, bool out_is_float, int64_t stride,
                      int64_t num_rows, int64_t num_inputs, int64_t num_outputs) = 0;
  virtual void norm_rows(const NormRowsParams& params) = 0;
  virtual void append_keys(const AppendParams& params) = 0;
  virtual void attend(const AttentionParams& params) = 0;
  virtual void attend_prompts(const PrefillParams& params) = 0;
  virtual void swiglu(const SwigluParams& params) = 0;
  virtual void sample(const SampleParams& params) = 0;

  // What `work` queues is kept, with its pointers and sizes as they are, instead of done; replay() does it each time.
  // `work` may call the products and kernels above alone.
  virtual int capture(const std::function<void()>& work) = 0;
  virtual void replay(int captured) = 0;
  virtual void forget(int captured) noexcept = 0;  // none of its replays may be under way
};

}  // namespace archer
