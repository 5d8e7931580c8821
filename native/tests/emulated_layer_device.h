// The device of training on the CPU: plain loops for the products, the kernels' source run by gpu_emulation.h.
#pragma once
#include "tests/emulated_gpu.h"
// After the primitives.
#include "kernels/layer_device.h"
#include "kernels/layer_rows_kernel.h"

namespace archer {

class EmulatedLayerDevice : public EmulatedGpu<LayerDevice> {
 public:
  // Blocks have 64 threads, which is quicker, or those of the GPU.
  explicit EmulatedLayerDevice(gpu::emulation::Order order = gpu::emulation::Order::in_turn, bool full_blocks = false)
      : EmulatedGpu(order, size_t{1} << 30), full_blocks_(full_blocks) {}

  void multiply(const Product& p) override {
    for (int64_t i = 0; i < p.m; ++i) {
      for (int64_t j = 0; j < p.n; ++j) {
        float sum = 0;
        for (int64_t k = 0; k < p.k; ++k) {
          sum += bf16_to_float(p.a[p.a_transposed ? k * p.m + i : i * p.k + k]) *
                 bf16_to_float(p.b[p.b_transposed ? j * p.k + k : k * p.n + j]);
        }
        sum *= p.alpha;
        const auto at = static_cast<size_t>(i * p.n + j);
        if (p.out_is_float) {
          float* out = static_cast<float*>(p.out) + at;
          *out = p.add ? *out + sum : sum;
        } else {
          uint16_t* out = static_cast<uint16_t*>(p.out) + at;
          *out = gpu::to_bf16(p.add ? bf16_to_float(*out) + sum : sum).bits;
        }
      }
    }
  }

  void run(const LayerWork& work) override {
    if (full_blocks_) {
      run_with<kLayerThreads>(work);
    } else {
      run_with<64>(work);
    }
  }

 private:
  template <int kThreads>
  void run_with(const LayerWork& work) {
    std::visit(
        [&](const auto& params) {
          launch(static_cast<int>(num_layer_blocks(params, kThreads)), kThreads, 1, sizeof(double) * kThreads / 32,
                 [&] { gpu::layer_kernel<kThreads>(params); });
        },
        work);
  }

  bool full_blocks_;
};

}  // namespace archer
