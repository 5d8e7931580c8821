// What the scheduler asks of the device on which the weights lie: a cache of pages, prompts through the layers, tokens drawn.
// CpuDecoder goes one token further per call, GpuDecoder several. Which page is whose, who runs and when a response ends the
// scheduler decides. Without torch.
#pragma once
#include <cstdint>
#include <vector>

#include "core/packed.h"
#include "generate/request.h"
#include "model/pages.h"

namespace archer {

// One draw from a row of logits. Several may read the same row: the first tokens of a group come from its prompt's one row.
struct Draw {
  int64_t row = 0;
  uint32_t prompt_key = 0;
  uint32_t sample_index = 0;
  uint32_t position = 0;  // 0-based, counted from the first generated token
};

// A response that goes on: its newest token, not yet in the cache, belongs at `position`; its pages have room for the tokens of
// the next decode().
struct Continuation {
  int32_t token;
  int32_t position;
  int64_t budget;  // tokens that may still be drawn
  Draw next;       // its row is of no account
  Pages pages;
};

class Decoder {
 public:
  static constexpr int64_t kKeptRow = -1;

  virtual ~Decoder() = default;

  virtual int64_t num_pages() const = 0;
  virtual int64_t max_rows() const = 0;          // of a prefill and of a decode()
  virtual int64_t tokens_per_visit() const = 0;  // that a decode() draws for a response at most
  // Copies the first `count` positions of a page at least, in every layer.
  virtual void copy_page(int32_t from, int32_t to, int64_t count) = 0;

  virtual void prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N) = 0;
  // From the logits behind the last token of the prefill's sequences, which row counts, until the next prefill() or decode();
  // kKeptRow: what keep_logits() was last called for. ARCHER_E_NUMERIC names the first draw whose row defines no distribution.
  virtual std::vector<SampledToken> draw(const std::vector<Draw>& draws) = 0;
  virtual void keep_logits(int64_t row) = 0;

  // The next tokens of each, tokens_per_visit() entries side by side: id -1 behind a stop token and behind the budget.
  virtual std::vector<SampledToken> decode(const std::vector<Continuation>& rows) = 0;
};

}  // namespace archer
