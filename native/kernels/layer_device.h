// What a transformer's training passes and its optimizer ask of a device beyond gpu_device.h: products and the kernels of
// layer_ops.h. cuda_layer_device() makes the one for CUDA; the tests have one that runs on the CPU.
#pragma once
#include "kernels/gpu_device.h"
#include "kernels/layer_ops.h"

namespace archer {

// out_MN = alpha op(a) op(b), or out += that; row-major and contiguous, op(a) is [M, K], op(b) [K, N], sums in float32.
struct Product {
  const uint16_t *a, *b;
  bool a_transposed, b_transposed;  // a is stored as [K, M], b as [N, K]
  void* out;                        // float32 or bfloat16
  bool out_is_float, add;
  int64_t m, n, k;
  float alpha = 1.0f;
};

class LayerDevice : public GpuDevice {
 public:
  virtual void multiply(const Product& product) = 0;
  virtual void run(const LayerWork& work) = 0;
};

}  // namespace archer
