// The class of a token (archer.md section 2): knowledge where its entropy lies below the rho-quantile q of the
// entropies around it, reasoning above. Scopes: one q per response, per group (the responses of one prompt) or per
// batch. Arithmetic so that two correct programs agree: H rounded to float32; position rho (n - 1) in float64, snapped
// to an integer within 1e-9; linear interpolation and comparison in float64. Only tokens in the loss count.
// Legend: T tokens of all responses end to end, N responses.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "loss/options.h"

namespace archer {

// The rho-quantile of the values, n >= 1 of them; reorders them.
double entropy_quantile(std::span<float> values, double rho);

// One threshold q per response; NaN for a response without tokens in the loss.
//   entropies_T, loss_mask_T (0 = not in the loss), lengths_N (sum T), group_ids_N (read for scope group only)
// Scopes group and batch see the responses given here: the trainer calls this once with its whole mini-batch and hands
// the thresholds to every micro-batch.
template <typename F>
std::vector<double> class_thresholds(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                                     std::span<const int32_t> lengths_N, std::span<const int32_t> group_ids_N,
                                     double rho, EntropyScope scope);

// The class of one token in the loss, against its response's threshold.
template <typename F>
uint8_t token_class(F entropy, double threshold, EntropyTie tie) {
  const double rounded = static_cast<double>(static_cast<float>(entropy));
  return (tie == EntropyTie::gt ? rounded > threshold : rounded >= threshold) ? kReasoning : kKnowledge;
}

// kKnowledge, kReasoning or kNotInLoss per token, from thresholds_N that are given.
template <typename F>
std::vector<uint8_t> classify_tokens(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                                     std::span<const int32_t> lengths_N, std::span<const double> thresholds_N,
                                     EntropyTie tie);

struct TokenClasses {
  std::vector<uint8_t> classes;    // [T]
  std::vector<double> thresholds;  // [N]
};

// class_thresholds and classify_tokens in one.
template <typename F>
TokenClasses token_classes(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                           std::span<const int32_t> lengths_N, std::span<const int32_t> group_ids_N,
                           const LossOptions& options);

}  // namespace archer
