// The parameters of a Transformer: their names, shapes, dtypes and loading. The arithmetic is in forward.cpp (packed
// sequences) and decode.cpp (one token per slot).
#include "model/transformer.h"

#include <ATen/ops/empty.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "core/flat_tensors.h"
#include "core/head_gemm.h"
#include "core/linear.h"

namespace archer {
namespace {

std::string brackets(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, at::ScalarType compute_dtype, bool trainable)
    : config_(config), compute_dtype_(compute_dtype), trainable_(trainable), rope_(config, compute_dtype) {
  require(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16 || compute_dtype == at::kDouble, kConfig,
          std::string("the compute dtype must be float32, bfloat16 or float64, not ") + c10::toString(compute_dtype));
  require(config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0 && config.num_layers > 0 &&
              config.num_heads > 0 && config.num_kv_heads > 0 && config.head_dim > 0,
          kModel, "every size in the model's config must be positive");
  require(config.num_heads % config.num_kv_heads == 0, kModel,
          "num_attention_heads " + std::to_string(config.num_heads) + " is not a multiple of num_key_value_heads " +
              std::to_string(config.num_kv_heads));
  require(config.head_dim % 2 == 0, kModel, "head_dim " + std::to_string(config.head_dim) + " is odd");

  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_size = config.num_heads * config.head_dim, kv_size = config.num_kv_heads * config.head_dim;
  embedding_ = add_parameter("model.embed_tokens.weight", {config.vocab_size, hidden}, true);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto matrix = [&](const char* name, int64_t rows, int64_t columns) {
      return add_parameter(prefix + name + ".weight", {rows, columns}, true);
    };
    const auto bias = [&](const char* name, int64_t rows, bool present) {
      return present ? add_parameter(prefix + name + ".bias", {rows}, false) : -1;
    };
    const auto norm = [&](const char* name, int64_t size, bool present = true) {
      return present ? add_parameter(prefix + name + ".weight", {size}, false) : -1;
    };
    Layer layer;
    layer.input_norm = norm("input_layernorm", hidden);
    layer.q = matrix("self_attn.q_proj", q_size, hidden);
    layer.q_bias = bias("self_attn.q_proj", q_size, config.qkv_bias);
    layer.k = matrix("self_attn.k_proj", kv_size, hidden);
    layer.k_bias = bias("self_attn.k_proj", kv_size, config.qkv_bias);
    layer.v = matrix("self_attn.v_proj", kv_size, hidden);
    layer.v_bias = bias("self_attn.v_proj", kv_size, config.qkv_bias);
    layer.q_norm = norm("self_attn.q_norm", config.head_dim, config.qk_norm);
    layer.k_norm = norm("self_attn.k_norm", config.head_dim, config.qk_norm);
    layer.o = matrix("self_attn.o_proj", hidden, q_size);
    layer.o_bias = bias("self_attn.o_proj", hidden, config.output_bias);
    layer.post_norm = norm("post_attention_layernorm", hidden);
    layer.gate = matrix("mlp.gate_proj", inner, hidden);
    layer.gate_bias = bias("mlp.gate_proj", inner, config.mlp_bias);
    layer.up = matrix("mlp.up_proj", inner, hidden);
    layer.up_bias = bias("mlp.up_proj", inner, config.mlp_bias);
    layer.down = matrix("mlp.down_proj", hidden, inner);
    layer.down_bias = bias("mlp.down_proj", hidden, config.mlp_bias);
    layers_.push_back(layer);
  }
  final_norm_ = add_parameter("model.norm.weight", {hidden}, false);
  head_ = config.tie_word_embeddings ? embedding_ : add_parameter("lm_head.weight", {config.vocab_size, hidden}, true);
}

int64_t Transformer::add_parameter(std::string name, std::vector<int64_t> shape, bool decays) {
  parameters_.push_back({std::move(name), {}, {}, decays});
  shapes_.push_back(std::move(shape));
  return static_cast<int64_t>(parameters_.size()) - 1;
}

std::vector<int64_t> Transformer::expected_shape(const std::string& name) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == name) return shapes_[i];
  }
  throw ArcherError(kModel, "the model has no tensor named " + name);
}

void Transformer::load(const std::string& name, const at::Tensor& value) {
  const std::vector<int64_t> shape = expected_shape(name);
  require(value.sizes() == at::IntArrayRef(shape), kModel,
          "tensor " + name + " has shape " + brackets(value.sizes()) + ", the config asks for " + brackets(shape));
  require(at::isFloatingType(value.scalar_type()), kModel,
          "tensor " + name + " has dtype " + c10::toString(value.scalar_type()) + ", which is no floating-point dtype");
  const at::NoGradGuard no_grad;
  Parameter& parameter = *std::find_if(parameters_.begin(), parameters_.end(),
                                       [&](const Parameter& candidate) { return candidate.name == name; });
  const at::ScalarType master_dtype = compute_dtype_ == at::kDouble ? at::kDouble : at::kFloat;
  if (!parameter.compute.defined()) {
    const auto index = static_cast<size_t>(&parameter - parameters_.data());
    if (compute_.empty()) compute_ = flat_tensors(shapes_, compute_dtype_);
    parameter.compute = compute_[index];
    if (compute_dtype_ == master_dtype) {
      parameter.master = parameter.compute;
    } else if (trainable_) {
      if (masters_.empty()) masters_ = flat_tensors(shapes_, master_dtype);
      parameter.master = masters_[index];
    }
  }
  if (parameter.master.defined()) parameter.master.copy_(value);
  if (!parameter.compute.is_same(parameter.master)) {
    // Through the master where there is one: loading and refresh_compute_weights() must round alike.
    parameter.compute.copy_(parameter.master.defined() ? parameter.master : value);
  }
}

int64_t Transformer::num_parameters() const {
  int64_t count = 0;
  for (const std::vector<int64_t>& shape : shapes_) count += c10::multiply_integers(shape);
  return count;
}

int64_t Transformer::weight_bytes(at::ScalarType dtype) const { return flat_bytes(shapes_, dtype); }

void Transformer::refresh_compute_weights() {
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : parameters_) {
    if (parameter.master.defined() && !parameter.compute.is_same(parameter.master)) {
      parameter.compute.copy_(parameter.master);
    }
  }
}

const Parameter& Transformer::head() const { return parameters_[head_]; }

std::vector<at::Tensor> Transformer::weights() const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(parameters_.size());
  for (const Parameter& parameter : parameters_) {
    require(parameter.compute.defined(), kModel, "tensor " + parameter.name + " has not been loaded");
    tensors.push_back(parameter.compute);
  }
  return tensors;
}

void Transformer::check_ids(const std::vector<int32_t>& ids) const {
  for (size_t i = 0; i < ids.size(); ++i) {
    require(ids[i] >= 0 && ids[i] < config_.vocab_size, kShape,
            "token id " + std::to_string(ids[i]) + " at index " + std::to_string(i) + " is outside the vocabulary of " +
                std::to_string(config_.vocab_size));
  }
}

at::Tensor Transformer::logits(const at::Tensor& hidden_MH) const {
  const c10::NoGradGuard no_grad;
  const at::Tensor hidden = hidden_MH.contiguous();
  const at::ScalarType dtype = compute_dtype_ == at::kDouble ? at::kDouble : at::kFloat;
  at::Tensor logits_MV = at::empty({hidden.size(0), config_.vocab_size}, dtype);
  const at::Tensor weight = head().compute.detach();
  if (!own_logits(hidden, weight, logits_MV)) head_logits(hidden, weight, logits_MV);
  return logits_MV;
}

}  // namespace archer
