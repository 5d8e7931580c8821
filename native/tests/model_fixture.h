// Small random models for the tests of the model room: one of each flavour, every feature used by at least one.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <random>
#include <string>
#include <vector>

#include "model/transformer.h"

#undef CHECK  // libtorch's logging has a macro of this name
#include "check.h"

namespace fixture {

struct Flavour {
  std::string name;
  archer::ModelConfig config;
  archer::Lora lora = {};
};

inline std::vector<Flavour> flavours() {
  archer::ModelConfig llama;
  llama.vocab_size = 23;
  llama.hidden_size = 24;
  llama.intermediate_size = 40;
  llama.num_layers = 2;
  llama.num_heads = 4;
  llama.num_kv_heads = 2;
  llama.head_dim = 6;
  llama.max_position_embeddings = 64;
  llama.rope_scaling = archer::Llama3RopeScaling{4.0, 1.0, 4.0, 8};
  archer::ModelConfig biased = llama;
  biased.rope_scaling.reset();
  biased.head_dim = 8;
  biased.qkv_bias = biased.output_bias = biased.mlp_bias = biased.tie_word_embeddings = true;
  archer::ModelConfig qwen2 = llama;
  qwen2.rope_scaling.reset();
  qwen2.num_kv_heads = 1;
  qwen2.qkv_bias = qwen2.tie_word_embeddings = true;
  archer::ModelConfig qwen3 = llama;
  qwen3.rope_scaling.reset();
  qwen3.head_dim = 10;
  qwen3.qk_norm = true;
  return {{"llama", llama}, {"llama with biases", biased}, {"qwen2", qwen2}, {"qwen3", qwen3}};
}

// Adapters on three projections of each layer, or on all; alpha / rank is no power of two.
inline Flavour with_adapters(Flavour flavour, bool on_all) {
  flavour.name += on_all ? " with adapters on all" : " with adapters";
  flavour.lora = {3, 5.0, {"q_proj", "v_proj", "down_proj"}};
  if (on_all) flavour.lora.target_modules = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  return flavour;
}

// The values depend on the seed alone, not on the dtypes.
inline archer::Transformer make_model(const archer::ModelConfig& config, at::ScalarType dtype, uint64_t seed,
                                      bool trainable = true, const archer::Lora& lora = {}) {
  archer::Transformer model(config, dtype, trainable, lora);
  at::manual_seed(seed);
  for (const archer::Parameter& parameter : model.all()) {
    const bool is_norm = parameter.name.find("norm") != std::string::npos;
    const bool is_adapter = parameter.name.find("lora") != std::string::npos;  // smaller than what it lies over
    at::Tensor value = at::randn(model.expected_shape(parameter.name), at::kDouble) * (is_adapter ? 0.15 : 0.3);
    model.load(parameter.name, is_norm ? value + 1.0 : value);
  }
  return model;
}

inline archer::PackedSequences make_sequences(const std::vector<int>& lengths, int64_t vocab_size, uint64_t seed) {
  std::mt19937_64 random(seed);
  archer::PackedSequences sequences;
  sequences.offsets.push_back(0);
  for (const int length : lengths) {
    for (int t = 0; t < length; ++t) sequences.ids.push_back(static_cast<int32_t>(random() % vocab_size));
    sequences.offsets.push_back(static_cast<int32_t>(sequences.ids.size()));
  }
  return sequences;
}

// Sequences [begin, end) of a pack.
inline archer::PackedSequences part(const archer::PackedSequences& all, size_t begin, size_t end) {
  archer::PackedSequences some;
  some.ids.assign(all.ids.begin() + all.offsets[begin], all.ids.begin() + all.offsets[end]);
  for (size_t i = begin; i <= end; ++i) some.offsets.push_back(all.offsets[i] - all.offsets[begin]);
  return some;
}

// || a - b || / || b ||
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor wide_a = a.to(at::kDouble), wide_b = b.to(at::kDouble);
  return ((wide_a - wide_b).norm() / wide_b.norm()).item().toDouble();
}

}  // namespace fixture
