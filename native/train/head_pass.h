// The head over rows of hidden states, on the processor (loss/fused_loss.h) or on the GPU that they lie on (head/head_loss.h).
//   T tokens, R response tokens
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <vector>

#include "head/head_loss.h"
#include "loss/fused_loss.h"
#include "model/transformer.h"
#include "train/response_rows.h"

namespace archer {

// Buffers that a caller keeps across calls.
struct HeadBuffers {
  LossWorkspace loss;
  std::unique_ptr<HeadWorkspace> gpu;
};

struct HeadPass {
  FusedLossResult loss;
  at::Tensor grad_TH;  // of the hidden states, 0 where a row predicts no token
};

// grad_head_VH: see fused_loss().
HeadPass head_pass(const at::Tensor& hidden_TH, const Transformer& model, const ResponseRows& rows, const LossBatch& batch,
                   const LossOptions& options, at::Tensor grad_head_VH, HeadBuffers& buffers, const JobControl* control);

TokenScores head_scores(const at::Tensor& hidden_TH, const Transformer& model, const ResponseRows& rows,
                        std::span<const int32_t> ids_R, double temperature, HeadBuffers& buffers, const JobControl* control);

}  // namespace archer
