// What fused_loss asks of the output head, for one chunk of rows at a time: log-probabilities and entropies, then the
// gradients of hidden states and head from dL/dlogp and dL/dH. Two ways to do it: LogitsPass (any dtype, any processor)
// and TilePass (bfloat16, on processors that multiply it).
// Legend: T tokens, H hidden size, V vocabulary, R rows of the chunk.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/job_control.h"
#include "loss/fused_loss.h"

namespace archer {

using Rows = std::span<const int64_t>;  // tokens, ascending

// What both share. F: the type of log-probabilities and entropies.
template <typename F>
class HeadPass {
 public:
  using Scalar = F;

  const std::vector<F>& log_probs() const { return log_probs_; }
  const std::vector<F>& entropies() const { return entropies_; }
  int64_t backward_rows() const { return backward_rows_; }

  void check_ids(Rows rows) const {
    for (const int64_t t : rows) {
      if (ids_T_[t] < 0 || ids_T_[t] >= vocabulary_) {
        throw ArcherError(kShape, "ids[" + std::to_string(t) + "] is " + std::to_string(ids_T_[t]) +
                          ", outside the vocabulary of " + std::to_string(vocabulary_) + ".");
      }
    }
  }

 protected:
  HeadPass(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
           const JobControl* control, LossWorkspace& workspace)
      : hidden_TH_(hidden_TH), head_VH_(head_VH), ids_T_(ids_T), vocabulary_(head_VH.size(0)), control_(control),
        workspace_(workspace), log_probs_(ids_T.size(), F(0)), entropies_(ids_T.size(), F(0)) {}

  void check_control() const {
    if (control_) control_->check();
  }

  void require_finite(Rows rows) const {
    for (const int64_t t : rows) {
      if (std::isfinite(log_probs_[t]) && std::isfinite(entropies_[t])) continue;
      throw ArcherError(
          kNumeric, std::isnan(log_probs_[t])
                        ? "The logits of token " + std::to_string(t) +
                              " hold NaN or +inf; the hidden state or the head is not finite."
                        : "Token " + std::to_string(t) + " (id " + std::to_string(ids_T_[t]) + ") has probability 0.");
    }
  }

  const at::Tensor& hidden_TH_;
  const at::Tensor& head_VH_;
  std::span<const int32_t> ids_T_;
  int64_t vocabulary_;
  const JobControl* control_;
  LossWorkspace& workspace_;
  std::vector<F> log_probs_, entropies_;
  int64_t backward_rows_ = 0;
};

// The first `count` elements of a buffer that grows when it must.
inline at::Tensor buffer_of(at::Tensor& buffer, int64_t count, at::ScalarType dtype) {
  if (!buffer.defined() || buffer.scalar_type() != dtype || buffer.numel() < count) {
    buffer = at::Tensor();  // free first: both would be alive otherwise
    buffer = at::empty({count}, at::TensorOptions().dtype(dtype));
  }
  return buffer.narrow(0, 0, count);
}

}  // namespace archer
