// The parameters of a Transformer: their names, shapes, dtypes and loading. The arithmetic is in forward.cpp (packed
// sequences) and decode.cpp (one token per slot).
#include "model/transformer.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/flat_tensors.h"
#include "core/gpu_linear.h"
#include "core/head_gemm.h"
#include "core/linear.h"
#include "core/philox.h"

namespace archer {
namespace {

std::string brackets(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

// Matrices before vectors, so that q, k and v lie side by side where they have biases too: decoding on a GPU multiplies by
// them as by one.
std::vector<at::Tensor> matrices_first(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype, at::Device device) {
  std::vector<size_t> order(shapes.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_partition(order, [&](size_t i) { return shapes[i].size() > 1; });
  std::vector<std::vector<int64_t>> in_order;
  for (const size_t i : order) in_order.push_back(shapes[i]);
  const std::vector<at::Tensor> laid = flat_tensors(in_order, dtype, device);
  std::vector<at::Tensor> tensors(shapes.size());
  for (size_t i = 0; i < order.size(); ++i) tensors[order[i]] = laid[i];
  return tensors;
}

}  // namespace

Transformer::Transformer(const ModelConfig& config, at::ScalarType compute_dtype, bool trainable, const Lora& lora,
                         at::Device device)
    : config_(config),
      compute_dtype_(compute_dtype),
      trainable_(trainable),
      device_(device),
      rope_(config, at::TensorOptions(compute_dtype).device(device)) {
  require(compute_dtype == at::kFloat || compute_dtype == at::kBFloat16 || compute_dtype == at::kDouble, kConfig,
          std::string("the compute dtype must be float32, bfloat16 or float64, not ") + c10::toString(compute_dtype));
  require(config.vocab_size > 0 && config.hidden_size > 0 && config.intermediate_size > 0 && config.num_layers > 0 &&
              config.num_heads > 0 && config.num_kv_heads > 0 && config.head_dim > 0,
          kModel, "every size in the model's config must be positive");
  require(config.num_heads % config.num_kv_heads == 0, kModel,
          "num_attention_heads " + std::to_string(config.num_heads) + " is not a multiple of num_key_value_heads " +
              std::to_string(config.num_kv_heads));
  require(config.head_dim % 2 == 0, kModel, "head_dim " + std::to_string(config.head_dim) + " is odd");

  if (!device.is_cpu()) {
    require(compute_dtype == at::kBFloat16, kConfig, "model.dtype must be bfloat16 on a GPU");
    require(config.hidden_size % 8 == 0 && config.intermediate_size % 8 == 0 && config.head_dim % 16 == 0 && config.head_dim <= 256,
            kModel,
            "on a GPU hidden_size and intermediate_size must be multiples of 8 and head_dim one of 16, at most 256; this model has " +
                std::to_string(config.hidden_size) + ", " + std::to_string(config.intermediate_size) + " and " +
                std::to_string(config.head_dim));
  }

  require(lora.rank >= 0, kConfig, "the rank of the adapters is " + std::to_string(lora.rank) + ", below 0");
  std::vector<int64_t> adapted;

  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_size = config.num_heads * config.head_dim, kv_size = config.num_kv_heads * config.head_dim;
  embedding_ = add_parameter("model.embed_tokens.weight", {config.vocab_size, hidden}, true);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const std::string prefix = "model.layers." + std::to_string(i) + ".";
    const auto matrix = [&](const std::string& name, int64_t rows, int64_t columns) {
      const int64_t index = add_parameter(prefix + name + ".weight", {rows, columns}, true);
      const auto is_name = [&](const std::string& target) { return name.ends_with("." + target); };
      if (lora.rank > 0 && std::ranges::any_of(lora.target_modules, is_name)) adapted.push_back(index);
      return index;
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

  num_own_ = all_.size();
  adapter_of_.assign(num_own_, -1);
  require(lora.rank == 0 || !adapted.empty(), kConfig, "the adapters' target modules are no projections of this model");
  if (lora.rank > 0) lora_scale_ = lora.alpha / static_cast<double>(lora.rank);
  for (const int64_t index : adapted) {
    const std::string& name = all_[index].name;
    const std::string prefix = "base_model.model." + name.substr(0, name.size() - std::string(".weight").size());
    const std::vector<int64_t> shape = shapes_[index];
    adapter_of_[index] = add_parameter(prefix + ".lora_A.weight", {lora.rank, shape[1]}, true) - static_cast<int64_t>(num_own_);
    add_parameter(prefix + ".lora_B.weight", {shape[0], lora.rank}, true);
  }
}

int64_t Transformer::add_parameter(std::string name, std::vector<int64_t> shape, bool decays) {
  all_.push_back({std::move(name), {}, {}, decays});
  shapes_.push_back(std::move(shape));
  return static_cast<int64_t>(all_.size()) - 1;
}

size_t Transformer::index_of(const std::string& name) const {
  for (size_t i = 0; i < all_.size(); ++i) {
    if (all_[i].name == name) return i;
  }
  throw ArcherError(kModel, "the model has no tensor named " + name);
}

std::vector<int64_t> Transformer::expected_shape(const std::string& name) const { return shapes_[index_of(name)]; }

void Transformer::load(const std::string& name, const at::Tensor& value) {
  const size_t index = index_of(name);
  const std::vector<int64_t>& shape = shapes_[index];
  require(value.sizes() == at::IntArrayRef(shape), kModel,
          "tensor " + name + " has shape " + brackets(value.sizes()) + ", the config asks for " + brackets(shape));
  require(at::isFloatingType(value.scalar_type()), kModel,
          "tensor " + name + " has dtype " + c10::toString(value.scalar_type()) + ", which is no floating-point dtype");
  const at::NoGradGuard no_grad;
  Parameter& parameter = all_[index];
  const at::ScalarType master_dtype = compute_dtype_ == at::kDouble ? at::kDouble : at::kFloat;
  if (!parameter.compute.defined()) {
    if (compute_.empty()) compute_ = matrices_first(shapes_, compute_dtype_, device_);
    parameter.compute = compute_[index];
    const size_t first = first_trained();
    if (index < first || (first == 0 && !trainable_)) {
      // frozen
    } else if (compute_dtype_ == master_dtype) {
      parameter.master = parameter.compute;
    } else {
      if (masters_.empty()) masters_ = flat_tensors({shapes_.begin() + static_cast<int64_t>(first), shapes_.end()}, master_dtype, device_);
      parameter.master = masters_[index - first];
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
  for (size_t i = 0; i < num_own_; ++i) count += c10::multiply_integers(shapes_[i]);
  return count;
}

int64_t Transformer::weight_bytes(at::ScalarType dtype) const { return flat_bytes(shapes_, dtype); }

int64_t Transformer::trained_bytes(at::ScalarType dtype) const {
  return flat_bytes({shapes_.begin() + static_cast<int64_t>(first_trained()), shapes_.end()}, dtype);
}

void Transformer::refresh_compute_weights() {
  const at::NoGradGuard no_grad;
  for (Parameter& parameter : trained()) {
    if (parameter.master.defined() && !parameter.compute.is_same(parameter.master)) {
      parameter.compute.copy_(parameter.master);
    }
  }
}

const Parameter& Transformer::head() const { return all_[head_]; }

std::vector<at::Tensor> Transformer::weights() const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(all_.size());
  for (const Parameter& parameter : all_) {
    require(parameter.compute.defined(), kModel, "tensor " + parameter.name + " has not been loaded");
    tensors.push_back(parameter.compute);
  }
  tensors.resize(num_own_);
  return tensors;
}

void Transformer::load_fresh_adapters(uint64_t seed) {
  for (size_t i = num_own_; i < all_.size(); ++i) {
    const bool is_a = (i - num_own_) % 2 == 0;
    at::Tensor value = at::zeros(shapes_[i], at::kDouble);
    if (is_a) {
      const double bound = 1.0 / std::sqrt(static_cast<double>(shapes_[i][1]));
      double* values = value.data_ptr<double>();
      for (int64_t j = 0; j < value.numel(); ++j) {
        // A sample index that no group reaches: sampling never draws these numbers.
        const double uniform = sample_uniform(seed, 0, static_cast<uint32_t>(i), UINT32_MAX, static_cast<uint32_t>(j));
        values[j] = (2.0 * uniform - 1.0) * bound;
      }
    }
    load(all_[i].name, value);
  }
}

Transformer Transformer::base() const {
  Transformer base = *this;
  base.trainable_ = false;
  base.all_.resize(num_own_);
  base.adapter_of_.assign(num_own_, -1);
  return base;
}

at::Tensor Transformer::merged(int64_t parameter) const {
  const auto& [name, master, compute, decays] = all_[parameter];
  const at::Tensor& source = master.defined() ? master : compute;
  const int64_t index = adapter_index(parameter);
  if (index < 0) return source;
  const at::Tensor &a = adapters()[index].master, &b = adapters()[index + 1].master;
  return at::matmul(b, a).mul_(lora_scale_).add_(source);
}

LowRank Transformer::adapter(int64_t parameter) const {
  const int64_t index = adapter_index(parameter);
  if (index < 0) return {};
  return {adapters()[index].compute, adapters()[index + 1].compute, lora_scale_};
}

Projection Transformer::projection(int64_t weight, int64_t bias, const at::Tensor& out, const at::Tensor& residual) const {
  return {all_[weight].compute, bias < 0 ? at::Tensor() : all_[bias].compute, out, residual, adapter(weight)};
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
  at::Tensor logits_MV = at::empty({hidden.size(0), config_.vocab_size}, hidden.options().dtype(dtype));
  const at::Tensor weight = head().compute.detach();
  if (Gpu* gpu = gpu_of(hidden)) {
    gpu_logits(*gpu, hidden, weight, logits_MV);
    return logits_MV;
  }
  if (!own_logits(hidden, weight, logits_MV)) head_logits(hidden, weight, logits_MV);
  return logits_MV;
}

}  // namespace archer
