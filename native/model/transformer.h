// A decoder-only transformer over libtorch: weights, the packed forward, and the prefill/decode pair that generation runs on the
// same weights (shared in place: an update is seen at once). Training's forward and backward: training_pass.h.
//   T packed tokens, N sequences, B sequences decoded together, H hidden, V vocabulary, L layers, K kv heads, D head_dim
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/job_control.h"
#include "core/packed.h"
#include "model/config.h"
#include "model/kv_cache.h"
#include "model/ops.h"
#include "model/rope.h"

namespace archer {

struct Parameter {
  std::string name;     // Hugging Face's name, "model.layers.0.self_attn.q_proj.weight"
  at::Tensor master;    // what the optimizer updates; float32 (float64 in tests). Undefined where the parameter is frozen.
  at::Tensor compute;   // what the forward reads; the same tensor as master where the dtypes agree
  bool decays = true;   // weight decay: matrices yes, norms and biases no
};

// Adapters on the projections with these names (q_proj, ...) of every layer: PEFT's r, lora_alpha and target_modules.
struct Lora {
  int64_t rank = 0;  // 0: none
  double alpha = 0.0;
  std::vector<std::string> target_modules;
};

class Transformer {
 public:
  // Allocates nothing but the lists of parameters; load() each of them before the first forward.
  // compute_dtype: at::kFloat, at::kBFloat16 (or at::kDouble in tests). trainable keeps float32 masters beside bf16.
  // With adapters those alone are trained, and have their masters in any case; the model's own parameters are frozen.
  // On a GPU (core/gpu.h): bfloat16, and sizes that its kernels can take, else ARCHER_E_CONFIG or ARCHER_E_MODEL.
  Transformer(const ModelConfig& config, at::ScalarType compute_dtype, bool trainable, const Lora& lora = {},
              at::Device device = at::kCPU);

  const ModelConfig& config() const { return config_; }
  at::ScalarType compute_dtype() const { return compute_dtype_; }
  at::Device device() const { return device_; }
  bool trainable() const { return trainable_; }

  // Every parameter in the order of the layers, tied heads once. Its shape is expected_shape(name).
  std::span<Parameter> parameters() { return {all_.data(), num_own_}; }
  std::span<const Parameter> parameters() const { return {all_.data(), num_own_}; }
  // A and B of each adapted matrix in that order, by PEFT's names; empty without adapters.
  std::span<const Parameter> adapters() const { return std::span(all_).subspan(num_own_); }
  // What training changes: the adapters where there are any, else every parameter.
  std::span<Parameter> trained() { return std::span(all_).subspan(first_trained()); }
  std::span<const Parameter> trained() const { return std::span(all_).subspan(first_trained()); }
  // Both, the parameters first.
  std::span<const Parameter> all() const { return all_; }
  std::vector<int64_t> expected_shape(const std::string& name) const;
  // Copies `value`, of any floating dtype, converting to the dtypes above; ARCHER_E_MODEL on a wrong shape or name.
  void load(const std::string& name, const at::Tensor& value);
  // A uniform in ±1/sqrt(inputs) as PEFT has it (Kaiming with a = sqrt 5), B zero: the function of the base.
  void load_fresh_adapters(uint64_t seed);
  int64_t num_parameters() const;  // without adapters
  // What load() lays out once in this dtype: all parameters with the adapters, and those that are trained.
  int64_t weight_bytes(at::ScalarType dtype) const;
  int64_t trained_bytes(at::ScalarType dtype) const;

  // The same weights, not copied, frozen and without the adapters.
  Transformer base() const;
  // A parameter, with its adapter added where it has one: W + s B A, in float32 (float64).
  at::Tensor merged(int64_t parameter) const;

  // After an optimizer step: compute copies again equal the masters (rounded). No-op where they are one tensor.
  void refresh_compute_weights();

  // The head: lm_head.weight, or the embedding where tied. [V, H], compute dtype.
  const Parameter& head() const;

  // Hidden states after the final norm [T, H], where the weights are.
  at::Tensor hidden_states(const PackedSequences& sequences, const JobControl* control) const;
  // The most that hidden_states() and prefill() of `tokens` tokens, or decode() of as many sequences, hold at once.
  int64_t forward_bytes(int64_t tokens) const;

  // ---- for passes over the layers ----
  struct Layer {  // indices into parameters(); -1 where the configuration has none
    int64_t input_norm, q, q_bias, k, k_bias, v, v_bias, q_norm, k_norm, o, o_bias;
    int64_t post_norm, gate, gate_bias, up, up_bias, down, down_bias;
  };
  const std::vector<Layer>& layers() const { return layers_; }
  int64_t embedding_index() const { return embedding_; }
  int64_t final_norm_index() const { return final_norm_; }
  // The compute weights, one per parameter; ARCHER_E_MODEL where one has not been loaded.
  std::vector<at::Tensor> weights() const;
  // Where in adapters() the A of a parameter stands, its B behind it; -1: it has none.
  int64_t adapter_index(int64_t parameter) const { return adapter_of_[static_cast<size_t>(parameter)]; }
  LowRank adapter(int64_t parameter) const;  // undefined where it has none
  // A layer's projection with its adapter, as every pass takes it. bias: -1 for none.
  Projection projection(int64_t weight, int64_t bias, const at::Tensor& out, const at::Tensor& residual = {}) const;
  // The angles of a pack's tokens; ARCHER_E_SHAPE where its ids or offsets are wrong.
  Rotation rotation_of(const PackedSequences& sequences) const;

  // ---- generation ----
  // Runs each packed sequence once, writes its keys and values into its pages, and returns the hidden state after the
  // final norm of each sequence's last token [N, H].
  at::Tensor prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N, KvCache& cache,
                     const JobControl* control) const;
  // The next token of each sequence: ids_B[i] at position positions_B[i] of the sequence in pages_B[i]; attends to
  // everything before it there. Returns hidden states after the final norm [B, H].
  at::Tensor decode(const std::vector<int32_t>& ids_B, const std::vector<int32_t>& positions_B,
                    const std::vector<Pages>& pages_B, KvCache& cache, const JobControl* control) const;

  // Raw logits [M, V] in float32 (float64 for a float64 model) of hidden states [M, H], not divided by a temperature.
  at::Tensor logits(const at::Tensor& hidden_MH) const;

 private:
  struct Destination {  // where prefill puts keys and values
    const std::vector<PrefillTarget>& targets_N;
    KvCache& cache;
  };

  int64_t add_parameter(std::string name, std::vector<int64_t> shape, bool decays);
  size_t index_of(const std::string& name) const;
  size_t first_trained() const { return all_.size() > num_own_ ? num_own_ : 0; }
  at::Tensor forward(const PackedSequences& sequences, const JobControl* control, const Destination* destination) const;
  void check_ids(const std::vector<int32_t>& ids) const;

  ModelConfig config_;
  at::ScalarType compute_dtype_;
  bool trainable_;
  at::Device device_;
  double lora_scale_ = 1.0;
  std::vector<Parameter> all_;
  size_t num_own_ = 0;                        // of all_, then come the adapters'
  std::vector<std::vector<int64_t>> shapes_;  // of all_
  std::vector<int64_t> adapter_of_;           // of the own ones: adapter_index()
  std::vector<at::Tensor> compute_, masters_;  // theirs once load() has given them a value; empty before the first
  std::vector<Layer> layers_;
  int64_t embedding_ = -1, final_norm_ = -1, head_ = -1;
  mutable RopeTable rope_;  // grows with the longest sequence seen
};

at::Tensor ids_tensor(const std::vector<int32_t>& ids);  // int64, as libtorch's indexing wants them

}  // namespace archer
