// One Archer loss to measure: random data of a shape, kept workspace and gradients, and what an iteration cost.
// Knowledge and reasoning tokens are told apart by rollout entropies, so that the classes are known in advance; KL on
// knowledge tokens, dual clip, ratios near 1 so that almost every row needs its gradient.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "loss/fused_loss.h"

namespace archer::bench {

struct LossShape {
  std::string name;
  int64_t tokens = 0, hidden = 0, vocabulary = 0;
};

// smollm2-512, smollm2-2048, qwen-256, or TxHxV such as 8x16x50. Throws ARCHER_E_CONFIG with the known names.
LossShape shape_from_name(const std::string& name);

struct Sample {
  double seconds = 0, cpu_seconds = 0;
  int64_t peak_bytes = -1;  // resident beyond inputs and gradients; -1 where the kernel does not tell
};

class LossCase {
 public:
  // chunk_tokens and response_tokens: 0 = fused_loss's own choice; responses of 256 tokens.
  LossCase(const LossShape& shape, at::ScalarType dtype, bool keep_memory, int64_t chunk_tokens,
           int64_t response_tokens);

  const at::Tensor& hidden() const { return hidden_TH_; }
  const at::Tensor& head() const { return head_VH_; }
  int64_t backward_rows() const { return backward_rows_; }  // of the last run

  Sample run();

 private:
  LossBatch batch() const;
  void set_rollout();

  LossShape shape_;
  LossOptions options_;
  at::Tensor hidden_TH_, head_VH_, grad_hidden_TH_, grad_head_VH_;
  LossWorkspace workspace_;
  std::vector<int32_t> ids_, lengths_, group_ids_;
  std::vector<uint8_t> mask_;
  std::vector<double> old_log_probs_, old_entropies_, ref_log_probs_, advantages_;
  int64_t base_bytes_ = 0, backward_rows_ = 0;
};

}  // namespace archer::bench
