#include "generate/gpu_weights.h"

#include <string>

#include "core/gpu.h"

namespace archer {
namespace {

class Pointers {
 public:
  explicit Pointers(const Transformer& model) : model_(model), tensors_(model.weights()) {}

  // Null for -1.
  const uint16_t* at(int64_t index) const { return index < 0 ? nullptr : bf16(tensors_[static_cast<size_t>(index)]); }
  // Of tensors that are taken as one: the rows of each follow those of the one before.
  const uint16_t* joined(std::initializer_list<int64_t> indices) const {
    const uint16_t* const first = at(*indices.begin());
    const uint16_t* next = first;
    for (const int64_t index : indices) {
      if (index < 0) return nullptr;
      const Parameter& parameter = model_.parameters()[static_cast<size_t>(index)];
      require(at(index) == next, kModel,
              parameter.name + " does not follow what decoding on a GPU multiplies beside it: its size must be a multiple of 32");
      next += parameter.compute.numel();
    }
    return first;
  }

 private:
  const Transformer& model_;
  std::vector<at::Tensor> tensors_;
};

}  // namespace

GpuWeights::GpuWeights(const Transformer& model, int64_t positions)
    : rope_(model.config(), at::TensorOptions(at::kBFloat16).device(model.device())) {
  const Pointers pointers(model);
  rope_.reserve(positions);
  weights_.cosine = bf16(rope_.cosine());
  weights_.sine = bf16(rope_.sine());
  weights_.embedding_VH = pointers.at(model.embedding_index());
  weights_.final_norm_H = pointers.at(model.final_norm_index());
  weights_.head_VH = bf16(model.head().compute);
  for (const Transformer::Layer& from : model.layers()) {
    DecodeLayer layer;
    layer.input_norm_H = pointers.at(from.input_norm);
    layer.qkv_XH = pointers.joined({from.q, from.k, from.v});
    layer.qkv_bias_X = pointers.joined({from.q_bias, from.k_bias, from.v_bias});
    layer.q_norm_D = pointers.at(from.q_norm);
    layer.k_norm_D = pointers.at(from.k_norm);
    layer.output_HO = pointers.at(from.o);
    layer.output_bias_H = pointers.at(from.o_bias);
    layer.post_norm_H = pointers.at(from.post_norm);
    layer.gate_up_2FH = pointers.joined({from.gate, from.up});
    layer.gate_up_bias_2F = pointers.joined({from.gate_bias, from.up_bias});
    layer.down_HF = pointers.at(from.down);
    layer.down_bias_H = pointers.at(from.down_bias);
    weights_.layers.push_back(layer);
  }
}

}  // namespace archer
