// The decode engine, and whole generations, on a device against the same over another one (the emulation on the CPU), which
// the CTests decode_engine and generate_gpu hold against the CPU's own: small random models, caches of random keys and values.
#pragma once
#include <algorithm>

#include "core/philox.h"
#include "generate/gpu_decoder.h"
#include "generate/scheduler.h"
#include "kernels/sample_row.h"
#include "tests/decode_model.h"

namespace archer::decode_cases {

constexpr int32_t kEnginePositions = 400;

struct EngineSetup {
  DecodeDevice& device;
  DeviceModel weights;
  DecodeEngine engine;
  std::vector<DecodeSequence> sequences;

  EngineSetup(DecodeDevice& on, const HostModel& model, int32_t tokens_per_visit)
      : device(on), weights(on, model), engine(on, model.config, weights.weights(), limits(tokens_per_visit)) {
    Random random(9);
    const Bits cached = random.bf16(engine.cache_bytes() / sizeof(uint16_t), 1);
    device.upload(engine.layer_cache(0).keys, cached.data(), engine.cache_bytes());
    int32_t next_page = limits(1).num_pages - 1;
    for (const int32_t position : {0, 63, 64, 300, 127}) {
      DecodeSequence sequence;
      sequence.token = position % 7;
      sequence.position = position;
      sequence.budget = 50;
      sequence.prompt_key = static_cast<uint32_t>(position);
      for (int page = 0; page <= (position + 50) / kPagePositions; ++page) sequence.pages.push_back(next_page--);
      sequences.push_back(sequence);
    }
  }
  static DecodeLimits limits(int32_t tokens_per_visit) {
    DecodeLimits limits;
    limits.max_rows = 8;
    limits.max_positions = kEnginePositions;
    limits.num_pages = 30;
    limits.tokens_per_visit = tokens_per_visit;
    return limits;
  }
  void visit() {
    std::vector<DecodeSequence*> all;
    for (DecodeSequence& sequence : sequences) all.push_back(&sequence);
    engine.visit(all, 17, 2);
  }
  std::vector<float> logits() {
    std::vector<float> rows(sequences.size() * static_cast<size_t>(engine.logits_stride()));
    device.download(rows.data(), engine.logits(), rows.size() * sizeof(float));
    device.synchronize();
    return rows;
  }
};

// Logits within bfloat16's rounding of the reference's, every id the CPU's draw from the device's own logits, and the
// same ids with one or four tokens per visit.
inline void check_engine(DecodeDevice& device, DecodeDevice& reference_device, bool qwen2) {
  const HostModel model = random_model(small_config(qwen2), kEnginePositions, 6);
  EngineSetup setup(device, model, 1), reference(reference_device, model, 1), longer(device, model, 4);
  const auto V = static_cast<size_t>(model.config.vocab_size);
  const auto stride = static_cast<size_t>(setup.engine.logits_stride());
  kernels::SampleScratch scratch;
  double worst = 0;
  std::vector<std::vector<int32_t>> ids(setup.sequences.size());
  for (int step = 0; step < 4; ++step) {
    std::vector<double> uniforms;
    for (size_t i = 0; i < setup.sequences.size(); ++i) {
      const DecodeSequence& sequence = setup.sequences[i];
      uniforms.push_back(sample_uniform(17, 2, sequence.prompt_key, sequence.sample_index, sequence.num_generated));
      reference.sequences[i].token = sequence.token;
    }
    setup.visit();
    reference.visit();
    const std::vector<float> got = setup.logits(), expected = reference.logits();
    for (size_t i = 0; i < setup.sequences.size(); ++i) {
      double difference = 0, size = 0;
      for (size_t v = i * stride; v < i * stride + V; ++v) {
        difference += std::pow(static_cast<double>(got[v]) - static_cast<double>(expected[v]), 2);
        size += std::pow(static_cast<double>(expected[v]), 2);
      }
      worst = std::max(worst, std::sqrt(difference / size));
      kernels::SampledToken token;
      CHECK(kernels::sample_row(&got[i * stride], static_cast<int64_t>(V), {}, uniforms[i], scratch, &token));
      CHECK(setup.sequences[i].ids == std::vector<int32_t>{token.id});
      CHECK_NEAR(setup.sequences[i].log_probs.at(0), token.logp, 1e-5);
      ids[i].push_back(setup.sequences[i].ids.at(0));
    }
  }
  longer.visit();
  for (size_t i = 0; i < ids.size(); ++i) CHECK(longer.sequences[i].ids == ids[i]);
  CHECK(worst < 0.03);
  std::printf("engine, %s: logits within %.2g of the reference device's\n", qwen2 ? "qwen2" : "all flags", worst);
}

// A whole generation, greedy: two prompts in one prefill, more responses than slots. All but near ties have the same ids.
inline void check_generation(DecodeDevice& device, DecodeDevice& reference_device, bool qwen2) {
  const HostModel model = random_model(small_config(qwen2), kEnginePositions, 7);
  Random random(8);
  GenerateRequest request;
  request.prompts.offsets = {0, 130, 150};
  for (int i = 0; i < 150; ++i) {
    request.prompts.ids.push_back(static_cast<int32_t>(random.next() % static_cast<uint32_t>(model.config.vocab_size)));
  }
  request.prompt_keys = {1, 2};
  request.num_samples = 2;
  request.sampling.temperature = 0.0;
  request.max_new_tokens = 12;
  request.max_slots = 3;
  const auto run = [&](DecodeDevice& on) {
    const DeviceModel weights(on, model);
    GpuDecoder decoder(on, model.config, weights.weights(), request, nullptr);
    return schedule(decoder, request, nullptr);
  };
  const GenerateResult got = run(device), expected = run(reference_device);
  CHECK(got.offsets == expected.offsets && got.stats.decode_steps == expected.stats.decode_steps);
  int num_same = 0;
  for (size_t r = 0; r < 4; ++r) {
    const auto first = static_cast<size_t>(got.offsets[r]);
    CHECK_NEAR(got.log_probs[first], expected.log_probs[first], 0.2);
    num_same += std::equal(&got.ids[first], &got.ids[first] + 12, &expected.ids[first]);
  }
  CHECK(num_same >= 2);
  std::printf("generation, %s: %d of 4 greedy responses are the reference device's\n", qwen2 ? "qwen2" : "all flags", num_same);
}

}  // namespace archer::decode_cases
