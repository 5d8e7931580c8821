// Times of decoding on a GPU at the shape of Qwen2.5-1.5B against the roofline of the same run: a step must
// read every weight and every running row's keys and values once, and multiply every row by every weight.
//   floor = max(weight bytes / bandwidth, 2 * weights * batch / product rate) + cache bytes / bandwidth
// Bandwidth is that of a copy, the rate that of a large product, both measured between the visits.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "decode/engine.h"
#include "kernels/cuda_decode_device.h"
#include "tests/cuda/timing.h"
#include "tests/device_array.h"

namespace archer::bench {

inline ModelConfig qwen2_1_5b() {
  ModelConfig config;
  config.vocab_size = 151936;
  config.hidden_size = 1536;
  config.intermediate_size = 8960;
  config.num_layers = 28;
  config.num_heads = 12;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.qkv_bias = config.tie_word_embeddings = true;
  return config;
}

// Random weights; what is random on the host is one block, which the device gets again and again.
class RandomWeights {
 public:
  RandomWeights(DecodeDevice& device, const ModelConfig& config, int64_t positions) : device_(device), block_(1 << 24) {
    uint64_t state = 1;
    for (uint16_t& value : block_) {  // between 2^-7 and 2^-5, either sign
      state = state * 6364136223846793005u + 1442695040888963407u;
      value = static_cast<uint16_t>(0x3C00 + ((state >> 40) & 0x80FF));
    }
    const int64_t H = config.hidden_size, F = config.intermediate_size, O = config.num_heads * config.head_dim;
    const int64_t X = O + 2 * config.num_kv_heads * config.head_dim;
    weights_.embedding_VH = weights_.head_VH = matrix(config.vocab_size, H);
    weights_.final_norm_H = matrix(1, H);
    for (int64_t i = 0; i < config.num_layers; ++i) {
      DecodeLayer layer;
      layer.input_norm_H = matrix(1, H);
      layer.qkv_XH = matrix(X, H);
      layer.qkv_bias_X = matrix(1, X);
      layer.output_HO = matrix(H, O);
      layer.post_norm_H = matrix(1, H);
      layer.gate_up_2FH = matrix(2 * F, H);
      layer.down_HF = matrix(H, F);
      weights_.layers.push_back(layer);
    }
    count_ = total_;
    weights_.cosine = matrix(positions, config.head_dim / 2);  // not the real angles: the same bytes
    weights_.sine = matrix(positions, config.head_dim / 2);
  }
  ~RandomWeights() {
    for (void* memory : memory_) device_.release(memory);
  }
  const DecodeWeights& weights() const { return weights_; }
  double count() const { return static_cast<double>(count_); }
  void fill(void* memory, size_t bytes) {
    const size_t block = block_.size() * sizeof block_[0];
    for (size_t at = 0; at < bytes; at += block) {
      device_.upload(static_cast<char*>(memory) + at, block_.data(), std::min(block, bytes - at));
    }
    device_.synchronize();
  }

 private:
  const uint16_t* matrix(int64_t rows, int64_t columns) {
    const size_t bytes = static_cast<size_t>(rows * columns) * sizeof(uint16_t);
    memory_.push_back(device_.allocate(bytes));
    total_ += rows * columns;
    fill(memory_.back(), bytes);
    return static_cast<const uint16_t*>(memory_.back());
  }

  DecodeDevice& device_;
  std::vector<uint16_t> block_;
  std::vector<void*> memory_;
  DecodeWeights weights_;
  int64_t total_ = 0, count_ = 0;
};

struct MachineRates {
  double bytes_per_ms, flop_per_ms;
};

// The machine's two rates, measured now.
class Rates {
 public:
  Rates(DecodeDevice& device, cudaStream_t stream) : device_(device), stream_(stream) {
    from_ = device.allocate(kCopyBytes);
    to_ = device.allocate(kCopyBytes);
    left_ = device.allocate(kSide * kSide * 2);
    product_ = device.allocate(kSide * kSide * 2);
  }
  ~Rates() {
    for (void* memory : {from_, to_, left_, product_}) device_.release(memory);
  }
  void fill(RandomWeights& random) {
    random.fill(from_, kCopyBytes);
    random.fill(left_, kSide * kSide * 2);
  }
  MachineRates measure() { return {bytes_per_ms(), flop_per_ms()}; }

 private:
  double bytes_per_ms() {
    const double ms = event_ms(stream_, [&] {
      check_cuda(cudaMemcpyAsync(to_, from_, kCopyBytes, cudaMemcpyDeviceToDevice, stream_));
    });
    return 2.0 * kCopyBytes / ms;
  }
  double flop_per_ms() {
    const auto* left = static_cast<const uint16_t*>(left_);
    const double ms = event_ms(stream_, [&] {
      device_.linear(left, left, product_, false, kSide, kSide, kSide, kSide);
    });
    return 2.0 * kSide * kSide * kSide / ms;
  }

  static constexpr size_t kCopyBytes = size_t{1} << 30;
  static constexpr int64_t kSide = 8192;
  DecodeDevice& device_;
  cudaStream_t stream_;
  void *from_, *to_, *left_, *product_;
};

inline double step_floor_ms(const ModelConfig& config, double num_weights, int batch, double context,
                            const MachineRates& rates) {
  const double position_bytes = 4.0 * static_cast<double>(config.num_layers * config.num_kv_heads * config.head_dim);
  return std::max(2 * num_weights / rates.bytes_per_ms, 2 * num_weights * batch / rates.flop_per_ms) +
         position_bytes * batch * context / rates.bytes_per_ms;
}

// Repetitions of one measurement, each with the rates of the machine beside it.
struct Series {
  std::vector<double> fractions, times, bandwidths, flops;
  void add(double floor_ms, double ms, const MachineRates& rates) {
    fractions.push_back(floor_ms / ms);
    times.push_back(ms);
    bandwidths.push_back(rates.bytes_per_ms);
    flops.push_back(rates.flop_per_ms);
  }
};

class DecodeReport {
 public:
  // tokens: of one repetition.
  void row(const char* phase, int batch, int context, const Series& series, double tokens) {
    const double gb_per_s = median(series.bandwidths) * 1e-6, tflop_per_s = median(series.flops) * 1e-9;
    const double tokens_per_s = tokens / median(series.times) * 1e3, fraction = median(series.fractions);
    const auto [least, most] = std::minmax_element(series.fractions.begin(), series.fractions.end());
    char text[400];
    std::snprintf(text, sizeof text,
                  "{\"bench\": \"rollout\", \"device\": \"cuda\", \"shape\": \"qwen2.5-1.5b\", \"dtype\": \"bf16\", "
                  "\"phase\": \"%s\", \"batch\": %d, \"context\": %d, \"against\": \"roofline\", \"ratio\": %.4f, "
                  "\"ratio_min\": %.4f, \"ratio_max\": %.4f, \"pairs\": %zu, \"tokens_per_s\": %.0f, "
                  "\"gb_per_s\": %.0f, \"tflop_per_s\": %.0f}",
                  phase, batch, context, fraction, *least, *most, series.fractions.size(), tokens_per_s, gb_per_s,
                  tflop_per_s);
    rows_.push_back(text);
    std::printf("%-10s batch %3d, context %4d: %8.0f tokens/s, %.2f of the roofline (%.0f GB/s, %.0f TFLOP/s)\n", phase,
                batch, context, tokens_per_s, fraction, gb_per_s, tflop_per_s);
  }
  void kernel(int batch, int context, const char* what, double ms, double bytes) {
    char text[200];
    std::snprintf(text, sizeof text,
                  "{\"batch\": %d, \"context\": %d, \"what\": \"%s\", \"ms\": %.5f, \"gb_per_s\": %.0f}", batch,
                  context, what, ms, bytes / ms * 1e-6);
    details_.push_back(text);
    std::printf("  %-36s %8.4f ms  %7.0f GB/s\n", what, ms, bytes / ms * 1e-6);
  }
  std::string json(const std::string& machine) const {
    const auto lines = [](const std::vector<std::string>& items) {
      std::string text;
      for (size_t i = 0; i < items.size(); ++i) text += (i ? ",\n  " : "\n  ") + items[i];
      return text;
    };
    double load[1] = {0};
    if (getloadavg(load, 1) != 1) load[0] = -1;
    return "{\"machine\": \"" + machine + "\", \"load\": " + std::to_string(load[0]) + ", \"rows\": [" + lines(rows_) +
           "\n], \"details\": [" + lines(details_) + "\n]}\n";
  }

 private:
  std::vector<std::string> rows_, details_;
};

// Attention and sampling alone; each layer has keys and values of its own, so that the L2 cache cannot hold them.
inline void time_kernels(DecodeDevice& device, cudaStream_t stream, const ModelConfig& config, DecodeEngine& engine,
                         int batch, int context, int pairs, DecodeReport& report) {
  const auto B = static_cast<size_t>(batch);
  const int32_t pages_per_row = (context + kPagePositions - 1) / kPagePositions;
  std::vector<DecodeRow> rows(B);
  std::vector<int32_t> table(B * static_cast<size_t>(pages_per_row));
  for (size_t i = 0; i < B; ++i) {
    rows[i] = {1, context - 1, 1 << 30, 0, RowState::running, static_cast<int32_t>(i)};
  }
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  const int num_splits = (context + kSplitPositions - 1) / kSplitPositions;
  const size_t queries = B * static_cast<size_t>(config.num_heads * config.head_dim);
  const auto N = static_cast<size_t>(config.num_heads), V = static_cast<size_t>(config.vocab_size);
  DeviceArray<DecodeRow> d_rows(device, rows);
  DeviceArray<int32_t> d_table(device, table);
  const std::vector<uint16_t> constant(queries, 0x3C10);
  DeviceArray<uint16_t> d_queries(device, constant), d_out(device, constant);
  DeviceArray<float> d_sums(device, std::vector<float>(queries * static_cast<size_t>(num_splits)));
  DeviceArray<float> d_scales(device, std::vector<float>(B * N * static_cast<size_t>(num_splits) * 2));
  AttentionParams attention;
  attention.queries_BND = d_queries.get();
  attention.split_sums = d_sums.get();
  attention.split_scales = d_scales.get();
  attention.out_BND = d_out.get();
  attention.rows = d_rows.get();
  attention.num_rows = batch;
  attention.num_heads = static_cast<int32_t>(config.num_heads);
  attention.num_kv_heads = static_cast<int32_t>(config.num_kv_heads);
  attention.head_dim = static_cast<int32_t>(config.head_dim);
  attention.num_splits = num_splits;
  std::vector<float> logits(B * V);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>((i * 2654435761u >> 8) % 4096) / 512.0f;
  const auto num_parts = static_cast<int32_t>(num_sample_parts(config.vocab_size));
  const std::vector<float> no_parts(B * 4 * static_cast<size_t>(num_parts));
  DeviceArray<float> d_logits(device, logits), d_parts(device, no_parts);
  DeviceArray<SampleSettings> plain(device, {SampleSettings{}}), top_p(device, {SampleSettings{1.0, 0.95, 0.0, -1}});
  DeviceArray<double> uniforms(device, std::vector<double>(B, 0.5));
  DeviceArray<int32_t> ids(device, std::vector<int32_t>(B));
  DeviceArray<float> log_probs(device, std::vector<float>(B)), entropies(device, std::vector<float>(B));

  const auto timed = [&](const char* what, double bytes, int times, auto body) {
    std::vector<double> all;
    for (int i = 0; i < pairs + 2; ++i) {
      device.upload(d_rows.get(), rows.data(), rows.size() * sizeof rows[0]);  // as before the last draw
      const double ms = event_ms(stream, body) / times;
      if (i >= 2) all.push_back(ms);
    }
    report.kernel(batch, context, what, median(all), bytes);
  };
  const double cache_bytes = 2.0 * 2 * batch * context * static_cast<double>(config.num_kv_heads * config.head_dim);
  timed("attention of one layer", cache_bytes, static_cast<int>(config.num_layers), [&] {
    for (int64_t layer = 0; layer < config.num_layers; ++layer) {
      attention.cache = engine.layer_cache(layer);  // of its own table
      attention.cache.table_BP = d_table.get();
      attention.cache.pages_per_row = pages_per_row;
      device.attend(attention);
    }
  });
  for (auto* settings : {&plain, &top_p}) {
    timed(settings == &plain ? "sampling" : "sampling, top_p", 4.0 * static_cast<double>(logits.size()), 1, [&] {
      device.sample({d_logits.get(), config.vocab_size, batch, static_cast<int32_t>(V), settings->get(), num_parts,
                     d_parts.get(), uniforms.get(), nullptr, 0, 1, d_rows.get(), ids.get(), log_probs.get(),
                     entropies.get()});
    });
  }
}

inline void time_decode(DecodeDevice& device, cudaStream_t stream, Rates& machine, const ModelConfig& config,
                        RandomWeights& random, int batch, int context, int pairs, DecodeReport& report) {
  constexpr int kTokensPerVisit = 16;
  DecodeLimits limits;
  limits.max_rows = batch;
  limits.max_positions = context + kTokensPerVisit;
  const int32_t pages_each = ceil_div(limits.max_positions, kPagePositions);
  limits.num_pages = int64_t{batch} * pages_each;
  limits.tokens_per_visit = kTokensPerVisit;
  limits.prefill_tokens = 1;
  DecodeEngine engine(device, config, random.weights(), limits);
  random.fill(engine.layer_cache(0).keys, engine.cache_bytes());
  std::vector<DecodeSequence> sequences(static_cast<size_t>(batch));
  std::vector<DecodeSequence*> all;
  for (DecodeSequence& sequence : sequences) {
    const auto first_page = static_cast<int32_t>(all.size()) * pages_each;
    for (int32_t page = 0; page < pages_each; ++page) sequence.pages.push_back(first_page + page);
    all.push_back(&sequence);
  }
  Series series;
  for (int i = 0; i < pairs + 2; ++i) {
    for (DecodeSequence* sequence : all) {
      sequence->token = 1;
      sequence->position = context;
      sequence->budget = 1 << 20;
    }
    const MachineRates rates = machine.measure();
    const double ms = wall_ms([&] { engine.visit(all, 1, static_cast<uint32_t>(i)); }) / kTokensPerVisit;
    if (i < 2) continue;
    series.add(step_floor_ms(config, random.count(), batch, context + kTokensPerVisit / 2.0, rates), ms, rates);
  }
  report.row("decode", batch, context, series, batch);
  time_kernels(device, stream, config, engine, batch, context, pairs, report);
}

}  // namespace archer::bench
