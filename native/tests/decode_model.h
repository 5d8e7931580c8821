// Small random models for the decode engine, by Hugging Face's names, and their weights on a device. Without torch.
#pragma once
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "decode/engine.h"
#include "tests/decode_case_tools.h"
#include "tests/device_array.h"

namespace archer::decode_cases {

struct HostModel {
  ModelConfig config;
  std::map<std::string, Bits> tensors;
  std::map<std::string, std::vector<int64_t>> shapes;
  Bits cosine, sine;  // [positions, D / 2]
};

inline HostModel random_model(const ModelConfig& config, int64_t positions, uint64_t seed) {
  HostModel model;
  model.config = config;
  Random random(seed);
  const auto add = [&](const std::string& name, std::vector<int64_t> shape, double scale, double shift, bool present) {
    if (!present) return;
    size_t size = 1;
    for (const int64_t n : shape) size *= static_cast<size_t>(n);
    model.tensors[name] = random.bf16(size, scale, shift);
    model.shapes[name] = std::move(shape);
  };
  const int64_t H = config.hidden_size, F = config.intermediate_size, D = config.head_dim, V = config.vocab_size;
  add("model.embed_tokens.weight", {V, H}, 0.5, 0, true);
  add("model.norm.weight", {H}, 0.2, 1, true);
  add("lm_head.weight", {V, H}, 0.3, 0, !config.tie_word_embeddings);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto linear = [&](const char* name, int64_t outputs, int64_t inputs, bool bias) {
      add(prefix + name + ".weight", {outputs, inputs}, 1 / std::sqrt(static_cast<double>(inputs)), 0, true);
      add(prefix + name + ".bias", {outputs}, 0.3, 0, bias);
    };
    const auto norm = [&](const char* name, int64_t size, bool present) {
      add(prefix + name + ".weight", {size}, 0.2, 1, present);
    };
    norm("input_layernorm", H, true);
    linear("self_attn.q_proj", config.num_heads * D, H, config.qkv_bias);
    linear("self_attn.k_proj", config.num_kv_heads * D, H, config.qkv_bias);
    linear("self_attn.v_proj", config.num_kv_heads * D, H, config.qkv_bias);
    norm("self_attn.q_norm", D, config.qk_norm);
    norm("self_attn.k_norm", D, config.qk_norm);
    linear("self_attn.o_proj", H, config.num_heads * D, config.output_bias);
    norm("post_attention_layernorm", H, true);
    linear("mlp.gate_proj", F, H, config.mlp_bias);
    linear("mlp.up_proj", F, H, config.mlp_bias);
    linear("mlp.down_proj", H, F, config.mlp_bias);
  }
  for (int64_t position = 0; position < positions; ++position) {
    for (int64_t i = 0; i < D / 2; ++i) {
      const double frequency = std::pow(config.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(D));
      const double angle = static_cast<double>(position) * frequency;
      model.cosine.push_back(kernels::narrow<uint16_t>(static_cast<float>(std::cos(angle))));
      model.sine.push_back(kernels::narrow<uint16_t>(static_cast<float>(std::sin(angle))));
    }
  }
  return model;
}

// The weights on a device, as long as it lives: q, k, v and gate, up side by side.
class DeviceModel {
 public:
  DeviceModel(DecodeDevice& device, const HostModel& model) : device_(device), model_(model) {
    weights_.embedding_VH = upload({"model.embed_tokens.weight"});
    weights_.final_norm_H = upload({"model.norm.weight"});
    weights_.head_VH = model.config.tie_word_embeddings ? weights_.embedding_VH : upload({"lm_head.weight"});
    for (int64_t i = 0; i < model.config.num_layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".", attention = prefix + "self_attn.";
      const auto joined = [&](const char* kind) {
        return upload({attention + "q_proj" + kind, attention + "k_proj" + kind, attention + "v_proj" + kind});
      };
      DecodeLayer layer;
      layer.input_norm_H = upload({prefix + "input_layernorm.weight"});
      layer.qkv_XH = joined(".weight");
      layer.qkv_bias_X = joined(".bias");
      layer.q_norm_D = upload({attention + "q_norm.weight"});
      layer.k_norm_D = upload({attention + "k_norm.weight"});
      layer.output_HO = upload({attention + "o_proj.weight"});
      layer.output_bias_H = upload({attention + "o_proj.bias"});
      layer.post_norm_H = upload({prefix + "post_attention_layernorm.weight"});
      layer.gate_up_2FH = upload({prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight"});
      layer.gate_up_bias_2F = upload({prefix + "mlp.gate_proj.bias", prefix + "mlp.up_proj.bias"});
      layer.down_HF = upload({prefix + "mlp.down_proj.weight"});
      layer.down_bias_H = upload({prefix + "mlp.down_proj.bias"});
      weights_.layers.push_back(layer);
    }
    weights_.cosine = keep(model.cosine);
    weights_.sine = keep(model.sine);
  }
  const DecodeWeights& weights() const { return weights_; }

 private:
  // Null where the model has none of them.
  const uint16_t* upload(const std::vector<std::string>& names) {
    Bits joined;
    for (const std::string& name : names) {
      const auto found = model_.tensors.find(name);
      if (found != model_.tensors.end()) joined.insert(joined.end(), found->second.begin(), found->second.end());
    }
    return joined.empty() ? nullptr : keep(joined);
  }
  const uint16_t* keep(const Bits& values) {
    arrays_.push_back(std::make_unique<DeviceArray<uint16_t>>(device_, values));
    return arrays_.back()->get();
  }

  DecodeDevice& device_;
  const HostModel& model_;
  DecodeWeights weights_;
  std::vector<std::unique_ptr<DeviceArray<uint16_t>>> arrays_;
};

// As Qwen2.5 (a bias on qkv, tied head), and one with everything else the engine knows.
inline ModelConfig small_config(bool qwen2) {
  ModelConfig config;
  config.vocab_size = qwen2 ? 203 : 97;
  config.hidden_size = qwen2 ? 64 : 72;
  config.intermediate_size = qwen2 ? 104 : 88;
  config.num_layers = 2;
  config.num_heads = qwen2 ? 6 : 4;
  config.num_kv_heads = qwen2 ? 2 : 1;
  config.head_dim = qwen2 ? 64 : 128;
  config.max_position_embeddings = 1024;
  config.qkv_bias = true;
  config.tie_word_embeddings = qwen2;
  config.output_bias = config.mlp_bias = config.qk_norm = !qwen2;
  return config;
}

}  // namespace archer::decode_cases
