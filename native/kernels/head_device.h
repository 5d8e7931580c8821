// What the head's loop (head/head_loss.h) asks of a device beyond gpu_device.h: the three products and the row kernels.
// Legend: R rows of a chunk, H hidden size, V vocabulary. cuda_head_device() makes the one for CUDA; the tests have one
// that runs on the CPU.
#pragma once
#include "kernels/gpu_device.h"
#include "kernels/head_rows.h"

namespace archer {

class HeadDevice : public GpuDevice {
 public:
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
