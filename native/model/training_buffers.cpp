#include "model/training_buffers.h"

namespace archer {

TrainingBuffers::TrainingBuffers(Arena& arena, const ModelConfig& config, at::ScalarType dtype, int64_t tokens,
                                 bool checkpoint) {
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_size = config.num_heads * config.head_dim, k_size = config.num_kv_heads * config.head_dim;
  const auto take = [&](int64_t columns) { return arena.take({tokens, columns}, dtype); };
  const auto take_wide = [&](int64_t columns) { return arena.take({tokens, columns}, wide); };
  const auto take_numbers = [&](int64_t count) { return arena.take({count}, wide); };

  const auto beside_input = [&](LayerBuffers& layer) {
    layer.input_rstd_T = take_numbers(tokens);
    layer.q = take(q_size);
    layer.k = take(k_size);
    layer.v = take(k_size);
    if (config.qk_norm) {
      layer.q_rstd = take_numbers(tokens * config.num_heads);
      layer.k_rstd = take_numbers(tokens * config.num_kv_heads);
    }
    layer.mixed = take(q_size);
    layer.logsumexp = take_wide(config.num_heads);
    layer.middle_TH = take(hidden);
    layer.middle_rstd_T = take_numbers(tokens);
    layer.gate_TI = take(inner);
    layer.up_TI = take(inner);
  };
  LayerBuffers shared;
  if (checkpoint) beside_input(shared);
  layers.assign(static_cast<size_t>(config.num_layers), shared);
  for (LayerBuffers& layer : layers) {
    layer.input_TH = take(hidden);
    if (!checkpoint) beside_input(layer);
  }
  output_TH = take(hidden);
  output_rstd_T = take_numbers(tokens);
  hidden_TH = take(hidden);
  normed_TH = take(hidden);
  if (config.qk_norm) {
    rotated_q = take(q_size);
    rotated_k = take(k_size);
  }
  inner_TI = take(inner);

  const auto take_rounded = [&](const at::Tensor& wide_one, int64_t columns) { return dtype == wide ? wide_one : take(columns); };
  wide_grad_TH = take_wide(hidden);
  grad_TH = take_rounded(wide_grad_TH, hidden);
  wide_grad_normed_TH = take_wide(hidden);
  grad_inner_TI = take(inner);
  grad_mixed = take(q_size);
  wide_grad_q = take_wide(q_size);
  grad_q = take_rounded(wide_grad_q, q_size);
  wide_grad_k = take_wide(k_size);
  grad_k = take_rounded(wide_grad_k, k_size);
  grad_v = take(k_size);
}

int64_t activation_bytes(const ModelConfig& config, at::ScalarType dtype, int64_t tokens, bool checkpoint) {
  Arena counted;
  TrainingBuffers(counted, config, dtype, tokens, checkpoint);
  return counted.bytes();
}

}  // namespace archer
