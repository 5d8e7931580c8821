// For the tests of generation: a small model, requests, and a reference without cache, batches or scheduler: every response
// alone, the whole sequence run anew for each token.
#pragma once
#include <ATen/ops/empty.h>

#include <cstdint>
#include <string>
#include <vector>

#include "core/philox.h"
#include "generate/generate.h"
#include "kernels/sample_row.h"

#include "tests/check.h"

namespace fixture {

using archer::FinishReason;
using archer::GenerateRequest;
using archer::GenerateResult;
using archer::Transformer;

using Prompts = std::vector<std::vector<int32_t>>;

// 2 query heads per kv head, Qwen3's norms; weights wide enough for logits of standard deviation near 2.
inline Transformer make_model(at::ScalarType dtype, int64_t vocab_size, int64_t num_layers = 2) {
  archer::ModelConfig config;
  config.vocab_size = vocab_size;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_layers = num_layers;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 8192;
  config.qk_norm = true;
  Transformer model(config, dtype, false);
  uint32_t key = 0;
  std::vector<std::string> names;
  for (const archer::Parameter& parameter : model.parameters()) names.push_back(parameter.name);
  for (const std::string& name : names) {
    const std::vector<int64_t> shape = model.expected_shape(name);
    at::Tensor value = at::empty(shape, at::TensorOptions().dtype(at::kDouble));
    const bool is_norm = shape.size() == 1;
    for (int64_t i = 0; i < value.numel(); ++i) {
      const double u = 2.0 * archer::sample_uniform(1, 0, key, 0, static_cast<uint32_t>(i)) - 1.0;
      value.mutable_data_ptr<double>()[i] = is_norm ? 1.0 + 0.3 * u : 0.7 * u;
    }
    model.load(name, value);
    ++key;
  }
  return model;
}

inline archer::PackedSequences pack(const Prompts& prompts) {
  archer::PackedSequences packed;
  packed.offsets.push_back(0);
  for (const auto& prompt : prompts) {
    packed.ids.insert(packed.ids.end(), prompt.begin(), prompt.end());
    packed.offsets.push_back(static_cast<int32_t>(packed.ids.size()));
  }
  return packed;
}

struct Sample {
  std::vector<int32_t> ids;
  std::vector<float> log_probs, entropies;
  FinishReason reason;
  bool same_ids(const Sample& other) const { return ids == other.ids && reason == other.reason; }
};

inline std::vector<Sample> samples_of(const GenerateResult& result) {
  std::vector<Sample> samples;
  for (size_t r = 0; r + 1 < result.offsets.size(); ++r) {
    const auto slice = [&](const auto& flat) {
      return std::vector(flat.begin() + result.offsets[r], flat.begin() + result.offsets[r + 1]);
    };
    samples.push_back({slice(result.ids), slice(result.log_probs), slice(result.entropies), result.finish_reasons[r]});
  }
  return samples;
}

// Stop strings are not known here: tests of them look at texts.
inline Sample reference(const Transformer& model, const GenerateRequest& request, int64_t prompt, uint32_t sample_index) {
  std::vector<int32_t> ids(request.prompts.ids.begin() + request.prompts.offsets[prompt],
                           request.prompts.ids.begin() + request.prompts.offsets[prompt + 1]);
  Sample sample;
  sample.reason = FinishReason::length;
  archer::kernels::SampleScratch scratch;
  for (uint32_t k = 0; k < request.max_new_tokens && sample.reason == FinishReason::length; ++k) {
    const at::Tensor hidden = model.hidden_states(pack({ids}), nullptr);
    const at::Tensor logits = model.logits(hidden.narrow(0, hidden.size(0) - 1, 1));
    const double u = archer::sample_uniform(request.seed, request.step, request.prompt_keys[prompt], sample_index, k);
    archer::SampledToken token;
    CHECK(archer::kernels::sample_row(logits.const_data_ptr<double>(), logits.size(1), request.sampling, u, scratch,
                                      &token));
    ids.push_back(token.id);
    sample.ids.push_back(token.id);
    sample.log_probs.push_back(static_cast<float>(token.logp));
    sample.entropies.push_back(static_cast<float>(token.entropy));
    if (request.stop.is_stop_token(token.id)) sample.reason = FinishReason::stop;
  }
  return sample;
}

inline const Prompts kPrompts = {
    {5}, {1, 2, 3, 4, 5, 6, 7}, {9, 8}, {11, 3, 60, 2, 11, 11, 40, 7, 7, 0, 21, 35, 60}, {30, 31, 32}};
inline constexpr int64_t kVocabulary = 61;

inline GenerateRequest make_request(const Prompts& prompts, int64_t num_samples) {
  GenerateRequest request;
  request.prompts = pack(prompts);
  for (size_t i = 0; i < prompts.size(); ++i) request.prompt_keys.push_back(static_cast<uint32_t>(100 + 7 * i));
  request.num_samples = num_samples;
  request.seed = 0x123456789abcdefULL;
  request.step = 3;
  request.max_new_tokens = 14;
  request.stop.token_ids = {17, 42, 50, 3, 29};
  return request;
}

// Prompts around the borders of pages, the shortest of one token; responses that end early, late, and at the limit.
inline GenerateRequest make_long_request(int64_t num_samples) {
  Prompts prompts;
  for (const int32_t length : {1, 63, 64, 65, 127, 128, 129, 20}) {
    prompts.emplace_back();
    for (int32_t t = 0; t < length; ++t) prompts.back().push_back((7 * t * t + 11 * t + length) % kVocabulary);
  }
  GenerateRequest request = make_request(prompts, num_samples);
  request.max_new_tokens = 150;
  request.stop.token_ids = {17};
  return request;
}

// Of the pages that the longest sequence of make_long_request() can take: 129 + 149 positions.
constexpr int64_t kLongPages = 5;

inline int64_t page_bytes(const Transformer& model) {
  return archer::KvCache::page_bytes(model.config(), model.compute_dtype());
}

}  // namespace fixture
