// The Archer loss from hidden states, with its exact gradients, without a [tokens, vocabulary] tensor (archer.md 5):
// logits exist for one chunk of rows at a time. Pass 1 gives (logp, H) per token and leaves the exponentials of the chunk;
// then classes and coefficients; pass 2 multiplies the exponentials on to the gradients of hidden states and head
// (docs/fused-loss.md). Where a chunk holds everything that its classes depend on (whole responses, or entropies of the
// sampling policy), pass 2 follows at once; only responses longer than a chunk have their logits computed twice. Rows that
// need no gradient (masked; clipped without KL and entropy bonus; A = 0) take no part in the backward products.
// Legend: T response tokens of the micro-batch, H hidden size, V vocabulary; row t of hidden_TH is the state that
// *predicts* ids[t].
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "core/job_control.h"
#include "loss/token_loss.h"

namespace archer {

struct FusedLossResult {
  double loss = 0;
  std::vector<double> log_probs;    // [T], 0 for tokens not in the loss
  std::vector<double> entropies;    // [T], 0 for tokens not in the loss
  std::vector<uint8_t> classes;     // [T] kKnowledge, kReasoning or kNotInLoss
  std::vector<double> thresholds;   // [N], NaN for a response without tokens in the loss
  LossSums sums;
  int64_t backward_rows = 0;        // tokens that took part in the backward products
};

// Chunk buffers that a caller keeps across calls, so that tens of MB are not mapped anew for every micro-batch.
struct LossWorkspace {
  at::Tensor logits, exponentials, grad_hidden;                     // exponentials: bfloat16 only
  at::Tensor packed_hidden, packed_scaled, grad_blocks, scratch;  // of the tiles
};

// What the buffers take for `rows` tokens in the loss, chunks of automatic size and `threads` threads. Without gradients: for
// score_tokens().
int64_t loss_workspace_bytes(int64_t vocabulary, int64_t hidden, at::ScalarType dtype, int64_t rows, int threads, bool gradients);

// hidden_TH and head_VH: both float32, bfloat16 (logits and reductions in float32) or float64, contiguous, on the CPU.
// grad_hidden_TH: overwritten, allocated where undefined, of hidden_TH's dtype (or float32 for bfloat16 hidden states).
// grad_head_VH: float32 (float64 for float64 inputs); the gradient is added to it. Undefined: the head is frozen, and the product
// is not formed. With neither defined there are no gradients at all.
// Throws ARCHER_E_CONFIG, ARCHER_E_SHAPE (naming the field), ARCHER_E_NUMERIC (naming the token: NaN or +inf in its
// logits, or a sampled id of probability 0) or ARCHER_E_ABORTED; the gradients are then partly written.
FusedLossResult fused_loss(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                           const LossOptions& options, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH,
                           const JobControl* control = nullptr, LossWorkspace* workspace = nullptr);

struct TokenScores {
  std::vector<double> log_probs;  // [T]
  std::vector<double> entropies;  // [T], nats
};

// Log-probabilities and entropies of the softmax of the logits / temperature, for old and reference log-probabilities.
// The values are those of fused_loss, bit for bit where a chunk holds the same rows. chunk_tokens: see LossOptions.
TokenScores score_tokens(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                         double temperature, const JobControl* control = nullptr, int64_t chunk_tokens = 0,
                         LossWorkspace* workspace = nullptr);

}  // namespace archer
