// The scheduler's decoder on a GPU: decode/engine.h. Without torch.
#pragma once
#include "core/job_control.h"
#include "decode/engine.h"
#include "generate/decoder.h"
#include "generate/request.h"

namespace archer {

class GpuDecoder : public Decoder {
 public:
  // Takes its memory at once: as many pages as the request's budget and the GPU's free memory pay for, ARCHER_E_OOM where they
  // would not hold the longest possible sequence. `weights` must hold the angles of longest_positions(request) positions.
  // control (may be null) is polled before each piece of a prefill.
  GpuDecoder(DecodeDevice& device, const ModelConfig& config, const DecodeWeights& weights, const GenerateRequest& request,
             JobControl* control);

  int64_t num_pages() const override { return limits_.num_pages; }
  int64_t max_rows() const override { return limits_.max_rows; }
  int64_t tokens_per_visit() const override { return limits_.tokens_per_visit; }
  // The whole page, which is one piece.
  void copy_page(int32_t from, int32_t to, int64_t) override { engine_.copy_page(from, to); }
  void prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N) override;
  std::vector<SampledToken> draw(const std::vector<Draw>& draws) override;
  void keep_logits(int64_t row) override { engine_.keep_logits(static_cast<int32_t>(row)); }
  std::vector<SampledToken> decode(const std::vector<Continuation>& rows) override;

 private:
  const GenerateRequest& request_;
  JobControl* control_;
  DecodeLimits limits_;
  DecodeEngine engine_;
};

}  // namespace archer
