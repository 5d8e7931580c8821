// The head's device on the CPU: plain loops for the three products, the row kernels' source run by gpu_emulation.h.
#pragma once
#include "tests/emulated_gpu.h"
// After the primitives.
#include "kernels/head_device.h"
#include "kernels/head_rows_kernel.h"

namespace archer {

struct EmulatedOptions {
  int cluster = -1;                       // as CudaHeadOptions
  int threads = 64;                       // per block: 64 or the kernels' own 512
  size_t shared_bytes = size_t{227} << 10;  // per block, of the pretended GPU
  int max_cluster = 8;
  int resident_clusters = 2;              // clusters that run at once; a launch's rows are shared out among them
  gpu::emulation::Order order = gpu::emulation::Order::in_turn;
  size_t free_bytes = size_t{1} << 30;
};

class EmulatedDevice : public EmulatedGpu<HeadDevice> {
 public:
  explicit EmulatedDevice(const EmulatedOptions& options = {})
      : EmulatedGpu(options.order, options.free_bytes), options_(options) {}

  int num_products = 0;
  int64_t product_rows = 0;               // rows of the backward products of the head's gradient

  void multiply_logits(const uint16_t* hidden_RH, const uint16_t* head_VH, void* logits, LogitsType type,
                       int64_t stride, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    ++num_products;
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t v = 0; v < vocabulary; ++v) {
        float sum = 0;
        for (int64_t h = 0; h < hidden_size; ++h)
          sum += bf16_to_float(hidden_RH[r * hidden_size + h]) * bf16_to_float(head_VH[v * hidden_size + h]);
        if (type == LogitsType::float32) {
          static_cast<float*>(logits)[r * stride + v] = sum;
        } else {
          static_cast<uint16_t*>(logits)[r * stride + v] = gpu::to_bf16(sum).bits;
        }
      }
    }
  }
  void multiply_grad_hidden(const uint16_t* dlogits, int64_t stride, const uint16_t* head_VH, void* grad_RH,
                            bool grad_is_float, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    ++num_products;
    std::vector<float> sums(static_cast<size_t>(hidden_size));
    for (int64_t r = 0; r < num_rows; ++r) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (int64_t v = 0; v < vocabulary; ++v) {
        const float d = bf16_to_float(dlogits[r * stride + v]);
        for (int64_t h = 0; h < hidden_size; ++h)
          sums[static_cast<size_t>(h)] += d * bf16_to_float(head_VH[v * hidden_size + h]);
      }
      for (int64_t h = 0; h < hidden_size; ++h) {
        if (grad_is_float) {
          static_cast<float*>(grad_RH)[r * hidden_size + h] = sums[static_cast<size_t>(h)];
        } else {
          static_cast<uint16_t*>(grad_RH)[r * hidden_size + h] = gpu::to_bf16(sums[static_cast<size_t>(h)]).bits;
        }
      }
    }
  }
  void multiply_grad_head(const uint16_t* dlogits, int64_t stride, const uint16_t* hidden_RH, float* grad_VH,
                          int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    ++num_products;
    product_rows += num_rows;
    for (int64_t r = 0; r < num_rows; ++r) {
      for (int64_t v = 0; v < vocabulary; ++v) {
        const float d = bf16_to_float(dlogits[r * stride + v]);
        for (int64_t h = 0; h < hidden_size; ++h)
          grad_VH[v * hidden_size + h] += d * bf16_to_float(hidden_RH[r * hidden_size + h]);
      }
    }
  }

  void run_rows(HeadRowsMode mode, const HeadRowsParams& params) override {
    if (options_.threads == kHeadRowsThreads) {
      run_rows_of<kHeadRowsThreads>(mode, params);
    } else {
      run_rows_of<64>(mode, params);
    }
  }
  void copy_rows(const CopyRowsParams& params) override {
    launch(params.num_rows, 64, 1, kSharedHeaderBytes, [&] { gpu::copy_rows_body<64>(params); });
  }

 private:
  template <int kThreads>
  void run_rows_of(HeadRowsMode mode, const HeadRowsParams& p) {
    if (p.logits_type == LogitsType::float32) {
      run_typed<float, kThreads>(mode, p);
    } else {
      run_typed<gpu::Bf16, kThreads>(mode, p);
    }
  }
  template <typename In, int kThreads>
  void run_typed(HeadRowsMode mode, const HeadRowsParams& p) {
    HeadRowsPlan plan =
        plan_head_rows(mode, p.vocabulary, p.logits_type, options_.shared_bytes, options_.max_cluster);
    if (mode == HeadRowsMode::fused && options_.cluster >= 0) {
      plan = {options_.cluster,
              options_.cluster ? resident_bytes(p.vocabulary, options_.cluster, p.logits_type) : kSharedHeaderBytes};
    }
    const auto resident = [&](auto body) {
      const int clusters = p.num_rows < options_.resident_clusters ? p.num_rows : options_.resident_clusters;
      launch(clusters * plan.cluster, kThreads, plan.cluster, plan.shared_bytes, body);
    };
    switch (plan.cluster) {
      case 1: return resident([&] { gpu::resident_rows<In, 1, kThreads>(p); });
      case 2: return resident([&] { gpu::resident_rows<In, 2, kThreads>(p); });
      case 4: return resident([&] { gpu::resident_rows<In, 4, kThreads>(p); });
      case 8: return resident([&] { gpu::resident_rows<In, 8, kThreads>(p); });
      default: break;
    }
    launch(p.num_rows, kThreads, 1, plan.shared_bytes, [&] {
      if (mode == HeadRowsMode::statistics) gpu::streaming_rows<In, HeadRowsMode::statistics, kThreads>(p);
      if (mode == HeadRowsMode::fused) gpu::streaming_rows<In, HeadRowsMode::fused, kThreads>(p);
      if (mode == HeadRowsMode::gradient) gpu::streaming_rows<In, HeadRowsMode::gradient, kThreads>(p);
    });
  }

  EmulatedOptions options_;
};

}  // namespace archer
