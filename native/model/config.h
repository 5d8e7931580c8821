// The shape of a decoder-only transformer. Families (Llama, Qwen2, Qwen3) differ only in these fields; TypeScript
// (lib/model/config.ts) derives them from a Hugging Face config.json, so that no code here asks for a family's name.
#pragma once
#include <cstdint>
#include <optional>

namespace archer {

// Llama 3's frequency-dependent rope scaling ("rope_type": "llama3").
struct Llama3RopeScaling {
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_position_embeddings = 8192;
};

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;  // not always hidden_size / num_heads
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<Llama3RopeScaling> rope_scaling;
  bool qkv_bias = false;     // Qwen2; Llama and Qwen3 with attention_bias
  bool output_bias = false;  // o_proj bias: Llama and Qwen3 with attention_bias
  bool mlp_bias = false;     // Llama with mlp_bias
  bool qk_norm = false;      // Qwen3: RMSNorm over head_dim of q and k, before rope
  bool tie_word_embeddings = false;
};

}  // namespace archer
