// Times of prefill and of a whole generation (scheduler, shared prompts, two waves of responses) on a GPU at the shape of
// Qwen2.5-1.5B against the roofline of the same run, as decode_bench.h has it for a step:
//   prefill  max(layer bytes / bandwidth, 2 * layer weights * tokens / product rate) + attention's products / product rate
//   whole    prefill of every prompt once + every step at the mean context
#pragma once
#include <algorithm>
#include <vector>

#include "generate/gpu_decoder.h"
#include "generate/scheduler.h"
#include "tests/cuda/decode_bench.h"

namespace archer::bench {

inline double prefill_floor_ms(const ModelConfig& config, double layer_weights, int prompts, int length,
                               const MachineRates& rates) {
  const double tokens = static_cast<double>(prompts) * length;
  const double pairs = tokens * (length + 1) / 2;
  const double attention = 4.0 * static_cast<double>(config.num_layers * config.num_heads * config.head_dim) * pairs;
  return std::max(2 * layer_weights / rates.bytes_per_ms, 2 * layer_weights * tokens / rates.flop_per_ms) +
         attention / rates.flop_per_ms;
}

inline double layer_weights(const ModelConfig& config, const RandomWeights& random) {
  return random.count() - static_cast<double>(config.vocab_size * config.hidden_size);
}

inline std::vector<int32_t> some_ids(int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(i * 37 % 150000);
  return ids;
}

inline void time_prefill(DecodeDevice& device, Rates& machine, const ModelConfig& config, const RandomWeights& random,
                         int prompts, int length, int pairs, DecodeReport& report) {
  const int32_t pages_each = ceil_div(length, kPagePositions);
  DecodeLimits limits;
  limits.max_rows = prompts;
  limits.max_positions = length;
  limits.num_pages = int64_t{prompts} * pages_each;
  DecodeEngine engine(device, config, random.weights(), limits);
  const std::vector<int32_t> ids = some_ids(length);
  std::vector<std::vector<int32_t>> pages(static_cast<size_t>(prompts));
  std::vector<DecodePrompt> all;
  for (size_t i = 0; i < pages.size(); ++i) {
    for (int32_t page = 0; page < pages_each; ++page) pages[i].push_back(static_cast<int32_t>(i) * pages_each + page);
    all.push_back({ids, pages[i], 0});
  }
  Series series;
  for (int i = 0; i < pairs + 2; ++i) {
    const MachineRates rates = machine.measure();
    const double ms = wall_ms([&] {
      engine.prefill(all);
      device.synchronize();
    });
    if (i >= 2) series.add(prefill_floor_ms(config, layer_weights(config, random), prompts, length, rates), ms, rates);
  }
  report.row("prefill", prompts, length, series, static_cast<double>(prompts) * length);
}

// Every response runs to its end: there are no stop tokens.
inline void time_generation(DecodeDevice& device, Rates& machine, const ModelConfig& config, const RandomWeights& random,
                            int pairs, DecodeReport& report) {
  constexpr int kPrompts = 32, kSamples = 8, kPromptTokens = 512, kNewTokens = 512, kSlots = 128;
  GenerateRequest request;
  request.prompts.offsets.push_back(0);
  for (int i = 0; i < kPrompts; ++i) {
    const std::vector<int32_t> ids = some_ids(kPromptTokens);
    request.prompts.ids.insert(request.prompts.ids.end(), ids.begin(), ids.end());
    request.prompts.offsets.push_back(static_cast<int32_t>(request.prompts.ids.size()));
    request.prompt_keys.push_back(static_cast<uint32_t>(i));
  }
  request.num_samples = kSamples;
  request.max_new_tokens = kNewTokens;
  request.max_slots = kSlots;
  Series series;
  for (int i = 0; i < pairs + 1; ++i) {
    const MachineRates rates = machine.measure();
    const double ms = wall_ms([&] {
      GpuDecoder decoder(device, config, random.weights(), request, nullptr);
      schedule(decoder, request, nullptr);
    });
    const double steps = static_cast<double>(kPrompts * kSamples / kSlots) * (kNewTokens - 1);
    const double floor =
        prefill_floor_ms(config, layer_weights(config, random), kPrompts, kPromptTokens, rates) +
        steps * step_floor_ms(config, random.count(), kSlots, kPromptTokens + kNewTokens / 2.0, rates);
    if (i >= 1) series.add(floor, ms, rates);
  }
  report.row("generation", kSlots, kPromptTokens + kNewTokens, series,
             static_cast<double>(kPrompts) * kSamples * kNewTokens);
}

struct Options {
  int pairs = 9;
  std::string json, cublas_path;
};

inline int run(const Options& options) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreate(&stream));
  CudaGpuOptions device_options;
  device_options.stream = stream;
  device_options.cublas_path = options.cublas_path;
  const auto device = cuda_decode_device(device_options);
  const ModelConfig config = qwen2_1_5b();
  DecodeReport report;
  RandomWeights random(*device, config, 8192);
  Rates machine(*device, stream);
  machine.fill(random);
  for (const int context : {1024, 4096}) {
    for (const int batch : {1, 32, 256}) {
      time_decode(*device, stream, machine, config, random, batch, context, options.pairs, report);
    }
  }
  for (const auto& [prompts, length] : {std::pair{16, 256}, {4, 1024}, {1, 8192}}) {
    time_prefill(*device, machine, config, random, prompts, length, options.pairs, report);
  }
  time_generation(*device, machine, config, random, std::min(options.pairs, 3), report);
  const std::string json = report.json(properties.name);
  if (options.json.empty()) {
    std::printf("%s", json.c_str());
  } else {
    std::ofstream(options.json) << json;
  }
  return 0;
}

}  // namespace archer::bench
