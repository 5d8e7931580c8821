// A transformer's weights on a GPU as the decode engine takes them: the tensors' own memory, so that what AdamW writes is what
// decoding reads.
#pragma once
#include "decode/engine.h"
#include "model/rope.h"
#include "model/transformer.h"

namespace archer {

class GpuWeights {
 public:
  // Angles of `positions` positions. ARCHER_E_MODEL where the biases of gate and up do not lie side by side.
  GpuWeights(const Transformer& model, int64_t positions);
  const DecodeWeights& weights() const { return weights_; }

 private:
  RopeTable rope_;
  DecodeWeights weights_;
};

}  // namespace archer
