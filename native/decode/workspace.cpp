#include "decode/workspace.h"

#include <algorithm>
#include <type_traits>

namespace archer {

size_t DecodeWorkspace::lay_out(char* memory, const ModelConfig& config, const DecodeLimits& limits) {
  base = memory;
  max_batch = bucket(limits.max_rows);
  pages_per_row = ceil_div(limits.max_positions, kPagePositions);
  logits_stride = (config.vocab_size + 3) / 4 * 4;
  size_t bytes = 0;
  const auto take = [&](auto*& part, int64_t count) {
    part = reinterpret_cast<std::remove_reference_t<decltype(part)>>(reinterpret_cast<uintptr_t>(base) + bytes);
    bytes += (static_cast<size_t>(count) * sizeof(*part) + 255) / 256 * 256;
  };
  const int64_t B = max_batch, T = std::max(max_batch, limits.prefill_tokens), visit = limits.tokens_per_visit;
  const int64_t H = config.hidden_size, F = config.intermediate_size, N = config.num_heads, D = config.head_dim;
  const int64_t max_splits = bucket(ceil_div(limits.max_positions, kSplitPositions));
  take(x_TH, T * H);
  take(normed_TH, T * H);
  take(qkv_TX, T * (N + 2 * config.num_kv_heads) * D);
  take(queries_TND, T * N * D);
  take(mixed_TND, T * N * D);
  take(delta_TH, T * H);
  take(gate_up_T2F, T * 2 * F);
  take(inner_TF, T * F);
  take(last_BH, B * H);
  take(split_sums, B * N * max_splits * D);
  take(split_scales, B * N * max_splits * 2);
  take(logits, (B + 1) * logits_stride);  // and those that are kept
  take(parts, B * num_sample_parts(config.vocab_size) * 4);
  take(settings, 1);
  take(rows, T);
  take(tiles, T);
  take(table_BP, B * pages_per_row);
  take(stop_ids, static_cast<int64_t>(limits.stop_ids.size()));
  take(uniforms_BT, B * visit);
  take(ids_BT, B * visit);
  take(log_probs_BT, B * visit);
  take(entropies_BT, B * visit);
  return bytes;
}

}  // namespace archer
