// See row_weights.h.
#include "head/row_weights.h"

namespace archer {

RowWeights row_weights(const LossBatch& batch, const LossOptions& options, std::span<const uint8_t> classes_T,
                       std::span<const int32_t> response_of_token_T) {
  const auto reciprocal = [](double n) { return n > 0 ? 1.0 / n : 0.0; };
  const size_t num_tokens = batch.loss_mask.size();
  std::vector<double> in_loss(batch.lengths.size(), 0.0), of_class[kNumClasses];
  for (auto& counts : of_class) counts.assign(batch.lengths.size(), 0.0);
  for (size_t t = 0; t < num_tokens; ++t) {
    if (batch.loss_mask[t] == 0) continue;
    const auto i = static_cast<size_t>(response_of_token_T[t]);
    in_loss[i] += 1;
    if (classes_T[t] < kNumClasses) of_class[classes_T[t]][i] += 1;
  }
  const double per_sequence = reciprocal(batch.denominators.sequences);
  RowWeights weights{std::vector<double>(num_tokens, 0.0), std::vector<double>(num_tokens, 0.0)};
  for (size_t t = 0; t < num_tokens; ++t) {
    if (batch.loss_mask[t] == 0) continue;
    const auto i = static_cast<size_t>(response_of_token_T[t]);
    double weight = 1.0;
    switch (options.loss_agg_mode) {
      case LossAggMode::token_mean: weight = reciprocal(batch.denominators.loss_tokens); break;
      case LossAggMode::seq_mean_token_mean: weight = per_sequence * reciprocal(in_loss[i]); break;
      case LossAggMode::seq_mean_token_sum: weight = per_sequence; break;
      case LossAggMode::seq_mean_token_sum_norm: weight = per_sequence / options.loss_norm_length; break;
      case LossAggMode::token_sum: break;
    }
    weights.pg[t] = weights.kl[t] = weight;
    if (options.kl_normalizer == KlNormalizer::per_class && classes_T[t] < kNumClasses)
      weights.kl[t] = per_sequence * reciprocal(of_class[classes_T[t]][i]);
  }
  return weights;
}

}  // namespace archer
