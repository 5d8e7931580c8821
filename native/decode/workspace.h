// The memory of a decode engine beside the weights and the cache, laid out in one piece. Letters as in kernels/decode_ops.h;
// T rows of a prefill or a step, B of a step.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/decode_ops.h"
#include "model/config.h"

namespace archer {

constexpr int32_t kMaxDecodeRows = 256;

struct DecodeLimits {
  int32_t max_rows = 256;      // sequences at once, at most kMaxDecodeRows
  int32_t max_positions = 0;   // of one sequence, prompt included
  int64_t num_pages = 0;       // of 64 positions, in every layer
  int32_t tokens_per_visit = 8;
  int32_t prefill_tokens = 4096;  // that go through the layers together
  std::vector<int32_t> stop_ids;
};

inline int32_t ceil_div(int64_t value, int64_t by) { return static_cast<int32_t>((value + by - 1) / by); }

// The next power of two: batch and context buckets.
inline int32_t bucket(int32_t value) {
  int32_t size = 1;
  while (size < value) size *= 2;
  return size;
}

struct DecodeWorkspace {
  // Points every part behind `memory` and returns the size of all.
  size_t lay_out(char* memory, const ModelConfig& config, const DecodeLimits& limits);

  char* base = nullptr;
  int32_t max_batch = 0, pages_per_row = 0;  // the largest B; pages of the longest sequence
  int64_t logits_stride = 0;
  uint16_t *x_TH, *normed_TH, *qkv_TX, *queries_TND, *mixed_TND, *delta_TH, *gate_up_T2F, *inner_TF, *last_BH;
  float *split_sums, *split_scales, *logits, *parts, *log_probs_BT, *entropies_BT;
  double* uniforms_BT;
  SampleSettings* settings;
  DecodeRow* rows;
  PrefillTile* tiles;
  int32_t *table_BP, *stop_ids, *ids_BT;
};

}  // namespace archer
