#include "train/memory.h"

#include <algorithm>

#include "loss/fused_loss.h"
#include "model/packed_attention.h"
#include "model/training_buffers.h"
#include "model/transformer.h"

namespace archer {

TrainingMemory training_memory(const ModelConfig& config, at::ScalarType dtype, const Lora& lora, int64_t tokens, bool checkpoint,
                               int threads) {
  const Transformer model(config, dtype, true, lora);
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t element = static_cast<int64_t>(c10::elementSize(dtype)), wide_element = static_cast<int64_t>(c10::elementSize(wide));
  const int64_t hidden = config.hidden_size, masters = model.trained_bytes(wide);
  const int64_t q = config.num_heads * config.head_dim, kv = 2 * config.num_kv_heads * config.head_dim;

  TrainingMemory memory;
  memory.weights = model.weight_bytes(dtype);
  memory.masters = dtype == wide ? 0 : masters;
  memory.gradients = masters;
  memory.moments = 2 * masters;
  memory.activations = activation_bytes(config, dtype, tokens, checkpoint);
  // Three copies of the hidden states or their gradients around the loss (Trainer::forward_backward), then one layer's backward,
  // of which an adapter's is its share of dx and the two narrow products.
  const int64_t adapter = lora.rank > 0 ? std::max(q, config.intermediate_size) + 2 * lora.rank : 0;
  memory.micro_batch = tokens * (3 * hidden * element +
                                 std::max({hidden * wide_element, attention_copies(dtype, q, kv).backward * element, adapter * element}));
  memory.loss_chunk = loss_workspace_bytes(config.vocab_size, hidden, dtype, tokens, threads, true);
  // The chunk follows the forward, of which two copies of the hidden states are left.
  memory.scoring = std::max(model.forward_bytes(tokens),
                            tokens * 2 * hidden * element +
                                loss_workspace_bytes(config.vocab_size, hidden, dtype, tokens, threads, false));
  return memory;
}

}  // namespace archer
