// What training takes of memory, in bytes and by part: from the shapes, constants and walks that the allocations themselves go
// by, so that a plan made before a run tells what the run will hold (docs/memory.md).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/config.h"
#include "model/transformer.h"

namespace archer {

struct TrainingMemory {
  int64_t weights = 0;      // in the compute dtype; a model that is not trained holds these alone
  int64_t masters = 0;      // 0 where the weights are the masters
  int64_t gradients = 0;
  int64_t moments = 0;      // both of AdamW
  int64_t activations = 0;  // the training arena of a micro-batch
  int64_t micro_batch = 0;  // what a micro-batch holds beside it
  int64_t loss_chunk = 0;
  int64_t scoring = 0;      // a forward without backward over as many tokens, its chunk of logits included
};

// tokens: of the largest micro-batch.
TrainingMemory training_memory(const ModelConfig& config, at::ScalarType dtype, const Lora& lora, int64_t tokens, bool checkpoint,
                               int threads);

}  // namespace archer
