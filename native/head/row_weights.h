// The weights of every token's terms (archer.md section 4), for code that decides on tokens one by one:
//   L = sum_t w_pg (pg_t - alpha H_t) + w_kl beta_class kl_t
// Every weight holds the denominators of the whole mini-batch. TokenLossEvaluator has the same rule inside.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "loss/token_loss.h"

namespace archer {

struct RowWeights {
  std::vector<double> pg, kl;  // [T]; 0 for tokens not in the loss
};

// classes_T: kNotInLoss for tokens that the loss leaves out; which of the other two a token has matters for
// kl_normalizer per_class alone.
RowWeights row_weights(const LossBatch& batch, const LossOptions& options, std::span<const uint8_t> classes_T,
                       std::span<const int32_t> response_of_token_T);

}  // namespace archer
