// The transformer as plainly as it can be written over ATen, for autograd to differentiate: the oracle of the gradients' tests.
// Attention sequence by sequence with a full matrix of scores; every operation in the dtype of the leaves.
#pragma once
#include <torch/csrc/autograd/autograd.h>

#include <limits>
#include <map>

#include "model_fixture.h"

namespace fixture {

class PlainModel {
 public:
  // The weights of `model`, in `dtype`.
  PlainModel(const archer::Transformer& model, at::ScalarType dtype) : config_(model.config()), dtype_(dtype) {
    for (const archer::Parameter& parameter : model.all()) leaves_[parameter.name] = parameter.compute.to(dtype).detach().clone();
    for (const archer::Parameter& parameter : model.trained()) {
      leaves_[parameter.name].set_requires_grad(true);
      names_.push_back(parameter.name);
    }
    adapter_scale_ = model.adapter(model.layers()[0].q).scale;
  }

  at::Tensor hidden(const archer::PackedSequences& sequences) const {
    const at::AutoGradMode grad_mode(true);
    std::vector<at::Tensor> parts;
    for (size_t i = 0; i + 1 < sequences.offsets.size(); ++i) {
      const auto first = sequences.ids.begin() + sequences.offsets[i], past = sequences.ids.begin() + sequences.offsets[i + 1];
      parts.push_back(of_sequence({first, past}));
    }
    return at::cat(parts);
  }

  // Of sum(direction * hidden), one per trained parameter; undefined for an untied head.
  std::vector<at::Tensor> gradients(const archer::PackedSequences& sequences, const at::Tensor& direction_TH) const {
    std::vector<at::Tensor> inputs;
    for (const std::string& name : names_) inputs.push_back(leaves_.at(name));
    return torch::autograd::grad({hidden(sequences)}, inputs, {direction_TH.to(dtype_)}, false, false, true);
  }

 private:
  at::Tensor linear(const at::Tensor& x, const std::string& name) const {
    const auto bias = leaves_.find(name + ".bias");
    const at::Tensor y = at::linear(x, leaves_.at(name + ".weight"), bias == leaves_.end() ? std::nullopt : std::optional(bias->second));
    const auto a = leaves_.find("base_model.model." + name + ".lora_A.weight");
    if (a == leaves_.end()) return y;
    const at::Tensor& b = leaves_.at("base_model.model." + name + ".lora_B.weight");
    return y + adapter_scale_ * at::linear(at::linear(x, a->second), b);
  }
  at::Tensor norm(const at::Tensor& x, const std::string& name) const {
    return x * at::rsqrt(x.square().mean(-1, true) + config_.rms_norm_eps) * leaves_.at(name + ".weight");
  }
  // x [heads, length, D]
  at::Tensor rotate(const at::Tensor& x) const {
    const at::Tensor angles = at::outer(at::arange(x.size(1), at::kFloat), archer::rope_frequencies(config_));
    const at::Tensor cosine = angles.cos().to(dtype_), sine = angles.sin().to(dtype_);
    const at::Tensor a = x.narrow(-1, 0, config_.head_dim / 2), b = x.narrow(-1, config_.head_dim / 2, config_.head_dim / 2);
    return at::cat({a * cosine - b * sine, b * cosine + a * sine}, -1);
  }
  at::Tensor attention(const at::Tensor& y, const std::string& prefix) const {
    const int64_t length = y.size(0), group = config_.num_heads / config_.num_kv_heads;
    const auto heads = [&](const char* name) {
      return linear(y, prefix + name).view({length, -1, config_.head_dim}).transpose(0, 1);
    };
    at::Tensor q = heads("q_proj"), k = heads("k_proj");
    if (config_.qk_norm) {
      q = norm(q, prefix + "q_norm");
      k = norm(k, prefix + "k_norm");
    }
    k = rotate(k).repeat_interleave(group, 0);
    const at::Tensor v = heads("v_proj").repeat_interleave(group, 0);
    const at::Tensor scores = at::matmul(rotate(q), k.transpose(1, 2)) / std::sqrt(static_cast<double>(config_.head_dim));
    const at::Tensor unseen = at::ones({length, length}, at::kBool).triu(1);
    const at::Tensor weights = scores.masked_fill(unseen, -std::numeric_limits<double>::infinity()).softmax(-1);
    return linear(at::matmul(weights, v).transpose(0, 1).reshape({length, -1}), prefix + "o_proj");
  }
  at::Tensor of_sequence(const std::vector<int32_t>& ids) const {
    at::Tensor x = at::embedding(leaves_.at("model.embed_tokens.weight"), archer::ids_tensor(ids));
    for (int64_t i = 0; i < config_.num_layers; ++i) {
      const std::string prefix = "model.layers." + std::to_string(i) + ".";
      x = x + attention(norm(x, prefix + "input_layernorm"), prefix + "self_attn.");
      const at::Tensor y = norm(x, prefix + "post_attention_layernorm");
      x = x + linear(at::silu(linear(y, prefix + "mlp.gate_proj")) * linear(y, prefix + "mlp.up_proj"), prefix + "mlp.down_proj");
    }
    return norm(x, "model.norm");
  }

  archer::ModelConfig config_;
  at::ScalarType dtype_;
  double adapter_scale_ = 0;
  std::vector<std::string> names_;
  std::map<std::string, at::Tensor> leaves_;
};

}  // namespace fixture
