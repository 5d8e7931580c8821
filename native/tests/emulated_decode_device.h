// The decode engine's device on the CPU: plain loops for the products, the kernels' source run by gpu_emulation.h.
// Captured work is a list of calls with their parameters copied, as a graph has them.
#pragma once
#include <type_traits>

#include "tests/emulated_gpu.h"
// After the primitives.
#include "kernels/decode_attention_kernel.h"
#include "kernels/decode_device.h"
#include "kernels/decode_rows_kernel.h"
#include "kernels/decode_sample_kernel.h"
#include "kernels/prefill_attention_kernel.h"

namespace archer {

class EmulatedDecodeDevice : public EmulatedGpu<DecodeDevice> {
 public:
  // Blocks have 64 threads, which is quicker, or those of the GPU.
  explicit EmulatedDecodeDevice(gpu::emulation::Order order = gpu::emulation::Order::in_turn, bool full_blocks = false,
                                size_t capacity_bytes = size_t{1} << 30)
      : EmulatedGpu(order, capacity_bytes), full_blocks_(full_blocks) {}

  int num_replays = 0;

  void linear(const uint16_t* x_BI, const uint16_t* weight_NI, void* out, bool out_is_float, int64_t stride,
              int64_t num_rows, int64_t num_inputs, int64_t num_outputs) override {
    queue([=] {
      for (int64_t r = 0; r < num_rows; ++r) {
        for (int64_t n = 0; n < num_outputs; ++n) {
          float sum = 0;
          for (int64_t i = 0; i < num_inputs; ++i) {
            sum += bf16_to_float(x_BI[r * num_inputs + i]) * bf16_to_float(weight_NI[n * num_inputs + i]);
          }
          if (out_is_float) {
            static_cast<float*>(out)[r * stride + n] = sum;
          } else {
            static_cast<uint16_t*>(out)[r * stride + n] = gpu::to_bf16(sum).bits;
          }
        }
      }
    });
  }
  void norm_rows(const NormRowsParams& p) override {
    queue([=, this] {
      with_threads<kRowThreads>([&](auto threads) {
        launch(p.num_rows, threads, 1, 64, [&] { gpu::norm_rows<threads>(p); });
      });
    });
  }
  void append_keys(const AppendParams& p) override {
    queue([=, this] {
      with_threads<kAppendThreads>([&](auto threads) {
        const int warps = threads / 32, heads = p.num_rows * (p.num_heads + 2 * p.num_kv_heads);
        launch((heads + warps - 1) / warps, threads, 1, 0, [&] {
          p.head_dim == 64 ? gpu::append_keys<64, threads>(p) : gpu::append_keys<128, threads>(p);
        });
      });
    });
  }
  void attend(const AttentionParams& p) override {
    queue([=, this] {
      launch(p.num_rows * p.num_kv_heads * p.num_splits, gpu::kAttentionWarps * 32, 1,
             gpu::attention_shared_bytes(p.head_dim),
             [&] { p.head_dim == 64 ? gpu::attend_split<64>(p) : gpu::attend_split<128>(p); });
      launch(p.num_rows * p.num_heads, p.head_dim, 1, 0,
             [&] { p.head_dim == 64 ? gpu::merge_splits<64>(p) : gpu::merge_splits<128>(p); });
    });
  }
  void attend_prompts(const PrefillParams& p) override {
    queue([=, this] {
      launch(p.num_tiles * p.num_heads, gpu::kPrefillWarps * 32, 1, gpu::prefill_shared_bytes(p.head_dim),
             [&] { p.head_dim == 64 ? gpu::attend_tile<64>(p) : gpu::attend_tile<128>(p); });
    });
  }
  void swiglu(const SwigluParams& p) override {
    queue([=, this] {
      with_threads<kRowThreads>([&](auto threads) {
        const int vectors = p.num_rows * (p.intermediate_size / 8);
        launch((vectors + threads - 1) / threads, threads, 1, 0, [&] { gpu::swiglu_rows<threads>(p); });
      });
    });
  }
  void sample(const SampleParams& p) override {
    queue([=, this] {
      with_threads<kPartThreads>([&](auto threads) {
        launch(p.num_rows * p.num_parts, threads, 1, 128, [&] { gpu::reduce_part<threads>(p); });
      });
      with_threads<kChooseThreads>([&](auto threads) {
        launch(p.num_rows, threads, 1, gpu::sample_shared_bytes(p.vocabulary), [&] { gpu::choose_token<threads>(p); });
      });
    });
  }

  int capture(const std::function<void()>& work) override {
    capturing_ = &captured_[num_captured_];
    work();
    capturing_ = nullptr;
    return num_captured_++;
  }
  void replay(int captured) override {
    ++num_replays;
    for (const auto& call : captured_.at(captured)) call();
  }
  void forget(int captured) noexcept override { captured_.erase(captured); }
  size_t num_captured() const { return captured_.size(); }

 private:
  void queue(std::function<void()> call) {
    if (capturing_ != nullptr) {
      capturing_->push_back(std::move(call));
    } else {
      call();
    }
  }

  template <int kThreads, typename Body>
  void with_threads(Body body) {
    if (full_blocks_) {
      body(std::integral_constant<int, kThreads>{});
    } else {
      body(std::integral_constant<int, 64>{});
    }
  }

  bool full_blocks_;
  std::map<int, std::vector<std::function<void()>>> captured_;
  int num_captured_ = 0;
  std::vector<std::function<void()>>* capturing_ = nullptr;
};

}  // namespace archer
