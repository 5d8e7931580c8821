// Generation on a GPU. Prompts are prefilled by tokens, in pieces. Then every running sequence goes several tokens further
// per visit of the host: a step (embedding, all layers, head, draw) is captured once per batch bucket and context bucket
// and replayed; ids, positions, pages, random numbers and finished flags lie on the device, and a sequence that ends
// between two visits idles until the next one.
// Host C++ without CUDA or torch headers. Letters as in kernels/decode_ops.h.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "decode/workspace.h"
#include "kernels/decode_device.h"
#include "kernels/sample_row.h"
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

// A sequence to prefill. Positions before `first` have their keys and values already, in pages that it shares.
struct DecodePrompt {
  std::span<const int32_t> ids;
  std::span<const int32_t> pages;  // enough for all ids
  int32_t first = 0;               // at most the number of ids
};

// One token from the logits of a prompt.
struct DecodeDraw {
  int32_t prompt = 0;  // as DecodeEngine::prefill() counted it, or DecodeEngine::kept_prompt()
  uint32_t prompt_key = 0, sample_index = 0, num_generated = 0;  // core/philox.h
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

  static size_t page_bytes(const ModelConfig& config);
  size_t cache_bytes() const;
  // Where the keys and values of a layer lie. All layers' share of a page is one piece, [layers, 2, K, 64, D].
  PagedKeys layer_cache(int64_t layer) const;
  void copy_page(int32_t from, int32_t to);
  int64_t positions_after_visit(const DecodeSequence& sequence) const;
  // Raw logits of the last step or prefill, device memory [rows, stride]: row i is the visit's i-th sequence or the i-th
  // prompt.
  const float* logits() const { return work_.logits; }
  int64_t logits_stride() const { return work_.logits_stride; }

  // In range as generate/sampler.h's validate() has it.
  void set_sampling(const SampleSettings& settings);

  // Puts the keys and values of at most max_rows prompts into their pages, and leaves the logits behind the last token of
  // each until the next prefill() or visit(). Nothing waits; `between_pieces` is called before each piece.
  void prefill(const std::vector<DecodePrompt>& prompts, const std::function<void()>& between_pieces = {});
  // Copies a prompt's logits to where no prefill and no visit writes; one prompt at a time.
  void keep_logits(int32_t prompt);
  int32_t kept_prompt() const { return work_.max_batch; }
  // Any number, with one wait for each max_rows of them. ARCHER_E_NUMERIC names the first one whose logits are not finite.
  std::vector<kernels::SampledToken> draw(const std::vector<DecodeDraw>& draws, uint64_t seed, uint32_t step);

  // Runs all of them (at most max_rows) until each has drawn tokens_per_visit tokens or has ended; one wait.
  // ARCHER_E_SHAPE on a bad sequence; ARCHER_E_NUMERIC names the first one whose logits are not finite.
  void visit(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step);

 private:
  struct Drawn {
    std::vector<DecodeRow> rows;
    std::vector<int32_t> ids;
    std::vector<float> log_probs, entropies;
  };

  void check_token(const std::string& name, int32_t id) const;
  void fill_table(const std::string& name, std::span<const int32_t> pages, int64_t positions, int32_t* table_P) const;
  Drawn download(size_t num_rows);  // waits
  void upload(const std::vector<DecodeSequence*>& sequences, uint64_t seed, uint32_t step);
  template <typename Attend>
  void queue_layers(int32_t num_rows, Attend attend);
  void queue_head(const uint16_t* hidden_BH, int32_t num_rows);
  void queue_sample(int32_t num_rows);
  void queue_step(int32_t num_rows, int32_t num_splits);
  void queue_piece(const std::vector<DecodeRow>& rows);
  int captured_step(int32_t num_rows, int32_t num_splits);

  DecodeDevice& device_;
  ModelConfig config_;
  DecodeWeights weights_;
  DecodeLimits limits_;
  DecodeWorkspace work_;
  uint16_t* cache_ = nullptr;  // [pages, layers, keys and values, K, 64, D]
  std::map<std::pair<int32_t, int32_t>, int> captured_;  // by rows and splits
};

}  // namespace archer
