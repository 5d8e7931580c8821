// The scheduler's decoder on the processor: Transformer's prefill and decode over its own cache, one token per call.
#pragma once
#include <ATen/core/Tensor.h>

#include <limits>

#include "core/job_control.h"
#include "generate/decoder.h"
#include "generate/request.h"
#include "model/transformer.h"

namespace archer {

class CpuDecoder : public Decoder {
 public:
  // control (may be null) is polled per layer and chunk of logits.
  CpuDecoder(const Transformer& model, const GenerateRequest& request, int64_t num_pages, JobControl* control);

  int64_t num_pages() const override { return cache_.num_pages(); }
  int64_t max_rows() const override { return std::numeric_limits<int64_t>::max(); }
  int64_t tokens_per_visit() const override { return 1; }
  void copy_page(int32_t from, int32_t to, int64_t count) override { cache_.copy_page(from, to, count); }
  void prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N) override;
  std::vector<SampledToken> draw(const std::vector<Draw>& draws) override;
  void keep_logits(int64_t row) override { kept_1V_ = logits_of(row).narrow(0, row % chunk_rows_, 1).clone(); }
  std::vector<SampledToken> decode(const std::vector<Continuation>& rows) override;

  // The most that it holds beside the cache: a prefill of so many tokens, or a decode step, and the logits.
  static int64_t peak_bytes(const Transformer& model, int64_t prefill_tokens, int64_t running);

 private:
  void set_hidden(const at::Tensor& hidden_MH);
  const at::Tensor& logits_of(int64_t row);

  const Transformer& model_;
  const GenerateRequest& request_;
  JobControl* control_;
  const int64_t chunk_rows_;  // of logits that exist at once
  KvCache cache_;
  at::Tensor hidden_MH_;      // behind the tokens of the last prefill or step
  at::Tensor chunk_;          // logits of chunk_rows_ of them
  int64_t chunk_index_ = -1;
  at::Tensor kept_1V_;
};

}  // namespace archer
