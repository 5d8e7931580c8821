// Times of the head's loss on a GPU against its own three bare products, interleaved, and of the row kernels alone.
// Legend: N tokens, H hidden size, V vocabulary.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "kernels/cuda_head_device.h"
#include "head/head_loss.h"
#include "tests/cuda/timing.h"
#include "tests/head_row_cases.h"

namespace archer::bench {

struct Options {
  int pairs = 9;
  std::string json, cublas_path;
};

struct Shape {
  const char* name;
  int64_t tokens, hidden_size, vocabulary;
};

inline std::vector<uint16_t> random_bf16(size_t size, double scale, uint64_t seed) {
  std::vector<uint16_t> values(size);
  for (auto& value : values) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    const double uniform = static_cast<double>(seed >> 40) / (1 << 24) + static_cast<double>((seed >> 16) & 0xFFFFFF) /
                           (1 << 24) - 1.0;  // triangular, variance 1/6
    value = row_cases::round_bf16(static_cast<float>(uniform * 2.449 * scale));
  }
  return values;
}

// The per-token inputs of one micro-batch: 8 responses of the same length, the sampling policy's values given.
struct Tokens {
  std::vector<int32_t> ids, lengths, group_ids;
  std::vector<uint8_t> mask;
  std::vector<double> old_log_probs, old_entropies, ref_log_probs, advantages;
  Denominators denominators;

  LossBatch view() const {
    return {ids, lengths, group_ids, mask, old_log_probs, old_entropies, ref_log_probs, advantages, {}, denominators};
  }
};

inline Tokens make_tokens(const Shape& shape) {
  Tokens tokens;
  uint64_t seed = 5;
  const auto n = static_cast<size_t>(shape.tokens);
  for (size_t t = 0; t < n; ++t) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    tokens.ids.push_back(static_cast<int32_t>((seed >> 33) % static_cast<uint64_t>(shape.vocabulary)));
    tokens.old_entropies.push_back(static_cast<double>((seed >> 20) & 1023) / 256);
  }
  tokens.mask.assign(n, 1);
  tokens.lengths.assign(8, static_cast<int32_t>(shape.tokens / 8));
  tokens.group_ids.assign(8, 0);
  tokens.advantages = {1, -1, 0.5, -0.5, 1.5, -1.5, 0.7, -0.7};
  tokens.old_log_probs.assign(n, 0.0);
  tokens.ref_log_probs.assign(n, 0.0);
  tokens.denominators = {8, static_cast<double>(n), static_cast<double>(n)};
  return tokens;
}

class Report {
 public:
  void row(const std::string& shape, const char* dtype, const char* against, const std::vector<double>& ratios) {
    char text[400];
    std::snprintf(text, sizeof text,
                  "{\"bench\": \"loss\", \"device\": \"cuda\", \"shape\": \"%s\", \"dtype\": \"%s\", \"threads\": 1, "
                  "\"against\": \"%s\", \"ratio\": %.4f, \"ratio_min\": %.4f, \"ratio_max\": %.4f, "
                  "\"memory_ratio\": null, \"pairs\": %zu}",
                  shape.c_str(), dtype, against, median(ratios), *std::min_element(ratios.begin(), ratios.end()),
                  *std::max_element(ratios.begin(), ratios.end()), ratios.size());
    rows_.push_back(text);
  }
  void time(const std::string& shape, const std::string& what, double ms, double bytes) {
    char text[300];
    std::snprintf(text, sizeof text, "{\"shape\": \"%s\", \"what\": \"%s\", \"ms\": %.4f, \"gb_per_s\": %s}",
                  shape.c_str(), what.c_str(), ms, bytes > 0 ? std::to_string(bytes / ms * 1e-6).c_str() : "null");
    times_.push_back(text);
    std::printf("  %-52s %9.3f ms", what.c_str(), ms);
    if (bytes > 0) std::printf("  %7.0f GB/s", bytes / ms * 1e-6);
    std::printf("\n");
  }
  void memory(const std::string& shape, const std::string& what, double bytes) {
    char text[200];
    std::snprintf(text, sizeof text, "{\"shape\": \"%s\", \"what\": \"%s\", \"bytes\": %.0f}", shape.c_str(),
                  what.c_str(), bytes);
    times_.push_back(text);
    std::printf("  %-52s %9.1f MB\n", what.c_str(), bytes * 1e-6);
  }
  std::string json(const std::string& machine) const {
    double load[1] = {0};
    if (getloadavg(load, 1) != 1) load[0] = -1;
    std::string text = "{\"machine\": \"" + machine + "\", \"load\": " + std::to_string(load[0]) + ", \"rows\": [";
    for (size_t i = 0; i < rows_.size(); ++i) text += (i ? ",\n  " : "\n  ") + rows_[i];
    text += "\n], \"details\": [";
    for (size_t i = 0; i < times_.size(); ++i) text += (i ? ",\n  " : "\n  ") + times_[i];
    return text + "\n]}\n";
  }

 private:
  std::vector<std::string> rows_, times_;
};

// The row kernels alone on a full chunk of logits, which every run finds anew.
inline void time_rows(const Shape& shape, const Options& options, cudaStream_t stream, const uint16_t* hidden,
                      const uint16_t* head, Report& report) {
  const std::string name = shape.name;
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0));
  const int64_t R = 2048, V = shape.vocabulary, stride = (V + 7) / 8 * 8;
  for (const LogitsType type : {LogitsType::float32, LogitsType::bfloat16}) {
    const bool is_float = type == LogitsType::float32;
    for (const int cluster : {-1, 0, 1, 2, 4, 8}) {
      if (cluster > 0 && resident_bytes(V, cluster, type) > properties.sharedMemPerBlockOptin) continue;
      if (cluster > 1 && properties.major < 9) continue;
      CudaHeadOptions device_options;
      device_options.stream = stream;
      device_options.cluster = cluster;
      device_options.cublas_path = options.cublas_path;
      const auto device = cuda_head_device(device_options);
      const auto n = static_cast<size_t>(R);
      DeviceArray<uint8_t> logits(*device, std::vector<uint8_t>(n * static_cast<size_t>(stride) * (is_float ? 4 : 2)));
      std::vector<int32_t> ids(n);
      for (size_t r = 0; r < n; ++r) ids[r] = static_cast<int32_t>((r * 7919) % static_cast<size_t>(V));
      DeviceArray<int32_t> d_ids(*device, ids);
      DeviceArray<float> zeros(*device, std::vector<float>(n, 0.0f)), ones(*device, std::vector<float>(n, 1.0f));
      DeviceArray<uint8_t> classes(*device, std::vector<uint8_t>(n, 0)), flags(*device, std::vector<uint8_t>(n, 0));
      DeviceArray<RowStats> stats(*device, std::vector<RowStats>(n));
      HeadRowsParams p;
      p.logits = logits.get();
      p.logits_type = type;
      p.stride = stride;
      p.vocabulary = static_cast<int32_t>(V);
      p.num_rows = static_cast<int32_t>(R);
      p.ids = d_ids.get();
      p.zero_inactive = true;
      p.old_log_probs = p.ref_log_probs = zeros.get();  // the ratio is far below 1: not clipped with A > 0
      p.advantages = p.pg_weights = ones.get();
      p.classes = classes.get();
      p.edges[0] = p.edges[1] = {0.8f, 1.2f, 0.0f};
      p.kl_coef[0] = p.kl_coef[1] = 0.001f;
      p.stats = stats.get();
      p.flags = flags.get();
      const auto timed = [&](HeadRowsMode mode, double bytes_per_element, const std::string& what) {
        std::vector<double> times;
        for (int i = 0; i < options.pairs + 2; ++i) {
          device->multiply_logits(hidden, head, logits.get(), type, stride, R, shape.hidden_size, V);
          const double ms = event_ms(stream, [&] { device->run_rows(mode, p); });
          if (i >= 2) times.push_back(ms);
        }
        report.time(name, what, median(times), static_cast<double>(R) * static_cast<double>(V) * bytes_per_element);
      };
      const std::string type_name = is_float ? "float32" : "bfloat16";
      const double read = is_float ? 4 : 2;
      // Bytes that must move once; the streaming kernel reads a second time.
      if (cluster < 0) {
        timed(HeadRowsMode::statistics, read, "rows, statistics, " + type_name + ", 2048 rows");
        continue;
      }
      timed(HeadRowsMode::fused, read + 2, "rows, fused, " + type_name + ", cluster " + std::to_string(cluster));
    }
  }
}

inline void time_shape(const Shape& shape, const Options& options, Report& report) {
  const std::string name = shape.name;
  std::printf("%s: N %ld H %ld V %ld\n", shape.name, static_cast<long>(shape.tokens),
              static_cast<long>(shape.hidden_size), static_cast<long>(shape.vocabulary));
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreate(&stream));
  CudaHeadOptions device_options;
  device_options.stream = stream;
  device_options.cublas_path = options.cublas_path;
  const auto device = cuda_head_device(device_options);
  const auto N = static_cast<size_t>(shape.tokens), H = static_cast<size_t>(shape.hidden_size),
             V = static_cast<size_t>(shape.vocabulary);
  {
    DeviceArray<uint16_t> hidden(*device, random_bf16(N * H, 1.0, 1)),
        head(*device, random_bf16(V * H, 2.0 / std::sqrt(static_cast<double>(H)), 2));
    void* grad_hidden = device->allocate(N * H * 2);
    float* grad_head = static_cast<float*>(device->allocate(V * H * 4));
    device->zero(grad_head, V * H * 4);
    const DeviceHead d{hidden.get(), head.get(), shape.tokens, shape.hidden_size, shape.vocabulary, grad_hidden, false,
                       grad_head};
    Tokens tokens = make_tokens(shape);
    LossOptions loss_options;
    loss_options.clip_ratio_c = 10;

    for (const LogitsType type : {LogitsType::float32, LogitsType::bfloat16}) {
      const char* type_name = type == LogitsType::float32 ? "bf16, float32 logits" : "bf16, bfloat16 logits";
      HeadLossOptions head_options;
      head_options.logits_type = type;
      const size_t free_before = device->free_bytes();
      HeadWorkspace workspace(*device);
      const auto scores = score_tokens_on(d, tokens.ids, 1.0, head_options, workspace);
      // On policy but for a little: some tokens clipped, most not.
      for (size_t t = 0; t < N; ++t) {
        tokens.old_log_probs[t] = scores.log_probs[t] + 0.3 * std::sin(static_cast<double>(t));
        tokens.ref_log_probs[t] = scores.log_probs[t] + 0.2 * std::cos(static_cast<double>(t));
      }
      HeadLossResult result;
      const auto ours = [&] { result = head_loss(d, tokens.view(), loss_options, head_options, workspace); };
      ours();
      const double extra = static_cast<double>(free_before) - static_cast<double>(device->free_bytes()) +
                           static_cast<double>(device_options.cublas_workspace_bytes);

      // The same chunks, nothing but the products.
      const int64_t stride = static_cast<int64_t>((V + 7) / 8 * 8), element = type == LogitsType::float32 ? 4 : 2;
      const auto chunk = static_cast<int64_t>(workspace.slot_bytes(HeadWorkspace::kLogits)) / (stride * element);
      void* logits = workspace.get(HeadWorkspace::kLogits, 1);
      const int64_t gradient_stride = type == LogitsType::float32 ? 2 * stride : stride;
      // The gradients of the last chunk, kept: products of other numbers would take another time.
      const int64_t gradient_bytes = gradient_stride * 2;
      uint16_t* gradients = static_cast<uint16_t*>(device->allocate(static_cast<size_t>(chunk * gradient_bytes)));
      CopyRowsParams keep;
      keep.to = gradients;
      keep.from = logits;
      keep.to_pitch = keep.from_pitch = keep.row_bytes = gradient_bytes;
      keep.num_rows = static_cast<int32_t>(chunk);
      device->copy_rows(keep);
      const auto products = [&] {
        for (int64_t at = 0; at < shape.tokens; at += chunk) {
          const int64_t rows = std::min(chunk, shape.tokens - at);
          const uint16_t* rows_hidden = hidden.get() + at * shape.hidden_size;
          device->multiply_logits(rows_hidden, head.get(), logits, type, stride, rows, shape.hidden_size,
                                  shape.vocabulary);
          device->multiply_grad_head(gradients, gradient_stride, rows_hidden, grad_head, rows, shape.hidden_size,
                                     shape.vocabulary);
          device->multiply_grad_hidden(gradients, gradient_stride, head.get(),
                                       static_cast<uint16_t*>(grad_hidden) + at * shape.hidden_size, false, rows,
                                       shape.hidden_size, shape.vocabulary);
        }
        device->synchronize();
      };
      products();
      std::vector<double> ratios, our_ms, product_ms;
      for (int i = 0; i < options.pairs; ++i) {
        product_ms.push_back(wall_ms(products));
        device->zero(grad_head, V * H * 4);
        device->synchronize();
        our_ms.push_back(wall_ms(ours));
        ratios.push_back(product_ms.back() / our_ms.back());
      }
      report.row(name, type_name, "gemm-floor", ratios);
      const std::string what = std::string("whole loss, ") + type_name + ", chunk " + std::to_string(chunk);
      report.time(name, what, median(our_ms), 0);
      report.time(name, std::string("three products, ") + type_name, median(product_ms), 0);
      report.memory(name, std::string("extra memory, ") + type_name, extra);
      device->release(gradients);
      std::printf("  %lld of %zu tokens took part in the backward products\n",
                  static_cast<long long>(result.backward_rows), N);
    }
    time_rows(shape, options, stream, hidden.get(), head.get(), report);
    device->release(grad_hidden);
    device->release(grad_head);
  }
  cudaStreamDestroy(stream);
}

inline int run(const Options& options) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0));
  Report report;
  const Shape qwen{"qwen2.5-1.5b N8192", 8192, 1536, 151936}, smollm2{"smollm2-135m N8192", 8192, 576, 49152};
  time_shape(qwen, options, report);
  time_shape(smollm2, options, report);
  const std::string json = report.json(properties.name);
  if (options.json.empty()) {
    std::printf("%s", json.c_str());
  } else {
    std::ofstream(options.json) << json;
  }
  return 0;
}

}  // namespace archer::bench
