// The angles of the rotary embedding, in float32 and by the same operations as transformers, so that long positions
// round alike; Llama 3's scaling stretches the slow frequencies. Tables have the compute dtype, lie with the weights and grow on demand.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/config.h"

namespace archer {

// [D/2] float32: theta^(-2i/D), scaled where the configuration asks for it.
at::Tensor rope_frequencies(const ModelConfig& config);

class RopeTable {
 public:
  RopeTable(const ModelConfig& config, at::TensorOptions options) : config_(config), options_(options) {}
  // Makes positions 0 .. positions-1 available.
  void reserve(int64_t positions);
  const at::Tensor& cosine() const { return cosine_; }  // [positions, D/2]
  const at::Tensor& sine() const { return sine_; }

 private:
  ModelConfig config_;
  at::TensorOptions options_;
  at::Tensor cosine_, sine_;
};

}  // namespace archer
