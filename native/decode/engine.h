// Decoding on a GPU: every running sequence goes several tokens further per visit of the host. A step (embedding, all
// layers, head, draw) is captured once per batch bucket and context bucket and replayed; ids, positions, pages, random
// numbers and finished flags lie on the device, and a sequence that ends between two visits idles until the next one.
// Host C++ without CUDA or torch headers. Letters as in kernels/decode_ops.h.
#pragma once
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "kernels/decode_device.h"
#include "model/config.h"

namespace archer {

// Device pointers, bfloat16, kept alive by the caller. Row blocks of qkv and gate_up are the model's own matrices, so
// that one allocation can serve as both. Biases and norms that the model lacks are null.
struct DecodeLayer {
  const uint16_t *input_norm_H = nullptr, *qkv_XH = nullptr, *qkv_bias_X = nullptr, *q_norm_D = nullptr;
  const uint16_t *k_norm_D = nullptr, *output_HO = nullptr, *output_bias_H = nullptr;  // O = N D
  const uint16_t *post_norm_H = nullptr, *gate_up_2FH = nullptr, *gate_up_bias_2F = nullptr;
  const uint16_t *down_HF = nullptr, *down_bias_H = nullptr;
};
struct DecodeWeights {
  const uint16_t* embedding_VH = nullptr;
  std::vector<DecodeLayer> layers;
  const uint16_t *final_norm_H = nullptr, *head_VH = nullptr;
  const uint16_t *cosine = nullptr, *sine = nullptr;  // [max_positions, D / 2]
};

struct DecodeLimits {
  int32_t max_rows = 256;      // sequences at once, at most 256
  int32_t max_positions = 0;   // of one sequence, prompt included
  int64_t num_pages = 0;       // of 64 positions, in every layer
  int32_t tokens_per_visit = 8;
  std::vector<int32_t> stop_ids;
};

// A sequence between two visits. The keys and values of positions 0 .. position - 1 lie in its pages, which may be
// shared with other sequences but for the positions still to come.
struct DecodeSequence {
  int32_t token = 0;        // the newest, not yet in the cache
  int32_t position = 0;     // where it belongs
  int32_t budget = 0;       // tokens that may still be drawn
  uint32_t prompt_key = 0, sample_index = 0, num_generated = 0;  // of the next draw (core/philox.h)
  std::vector<int32_t> pages;  // enough for DecodeEngine::positions_after_visit()
  RowState state = RowState::running;
  // of the last visit
  std::vector<int32_t> ids;
  std::vector<float> log_probs, entropies;
};

class DecodeEngine {
 public:
  // Takes all the memory it will ever need. ARCHER_E_MODEL where the kernels do not fit the model, ARCHER_E_CONFIG for
  // limits out of range, ARCHER_E_OOM with the sizes where the device has less free.
  DecodeEngine(DecodeDevice& device, const ModelConfig& config, const DecodeWeights& weights,
               const DecodeLimits& limits);
  ~DecodeEngine();
  DecodeEngine(const DecodeEngine&) = delete;
  DecodeEngine& operator=(const DecodeEngine&) = delete;

  size_t cache_bytes() const;
  size_t workspace_bytes() const { return workspace_bytes_; }
  // Where the keys and values of a layer lie, [pages, K, 64, D]: a prefill writes there.
  PagedKeys layer_cache(int64_t layer) const;
  int64_t positions_after_visit(const DecodeSequence& sequence) const;
  // Raw logits of the last step, device memory [rows, stride]: row i is the visit's i-th sequence.
  const float* logits() const { return logits_; }
  int64_t logits_stride() const;

  // In range as generate/sampler.h's validate() has it.
  void set_sampling(const SampleSettings& settings);

  // Runs all of them (at most max_rows) until each has drawn tokens_per_visit tokens or has ended; one wait.
  // ARCHER_E_SHAPE on a bad sequence; ARCHER_E_NUMERIC names the first one whose logits are not finite.
  void visit(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step);

 private:
  size_t lay_out(char* base);
  void upload(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step);
  void queue_step(int32_t num_rows, int32_t num_splits);
  int captured_step(int32_t num_rows, int32_t num_splits);

  DecodeDevice& device_;
  ModelConfig config_;
  DecodeWeights weights_;
  DecodeLimits limits_;
  int32_t pages_per_row_, max_splits_;
  size_t workspace_bytes_ = 0;
  char* workspace_ = nullptr;
  uint16_t* cache_ = nullptr;  // [layers, keys and values, pages, K, 64, D]
  std::map<std::pair<int32_t, int32_t>, int> captured_;  // by rows and splits

  // Parts of the workspace.
  uint16_t *x_BH_, *normed_BH_, *qkv_BX_, *queries_BND_, *mixed_BND_, *delta_BH_, *gate_up_B2F_, *inner_BF_;
  float *split_sums_, *split_scales_, *logits_, *parts_, *log_probs_BT_, *entropies_BT_;
  double* uniforms_BT_;
  SampleSettings* settings_;
  DecodeRow* rows_;
  int32_t *table_BP_, *stop_ids_, *ids_BT_;
};

}  // namespace archer
