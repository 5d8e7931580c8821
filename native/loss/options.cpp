// Checks of the loss options and their names.
#include "loss/options.h"

#include <cmath>
#include <initializer_list>
#include <string>
#include <utility>

#include "core/error.h"

namespace archer {
namespace {

std::string text(double value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", value);
  return buffer;
}

template <typename E>
E from_name(const char* option, std::string_view name, std::initializer_list<std::pair<const char*, E>> known) {
  std::string hyphenated(name), names;
  for (char& c : hyphenated) c = c == '_' ? '-' : c;
  for (const auto& [spelling, value] : known) {
    std::string candidate(spelling);
    for (char& c : candidate) c = c == '_' ? '-' : c;
    if (candidate == hyphenated) return value;
    names += (names.empty() ? "" : ", ") + std::string(spelling);
  }
  throw ArcherError(kConfig,
                    std::string(option) + " is \"" + std::string(name) + "\"; it must be one of " + names + ".");
}

}  // namespace

void LossOptions::validate() const {
  require(rho >= 0.0 && rho <= 1.0, kConfig, "token_entropy_quantile is " + text(rho) + "; it must lie in [0, 1].");
  for (int c = 0; c < kNumClasses; ++c) {
    const std::string name = c == kKnowledge ? "knowledge tokens" : "reasoning tokens";
    const ClassOptions& options = classes[c];
    require(options.clip_low >= 0.0 && options.clip_low <= 1.0, kConfig,
            "The lower clip radius of " + name + " is " + text(options.clip_low) + "; it must lie in [0, 1].");
    require(
        options.clip_high >= 0.0 && std::isfinite(options.clip_high), kConfig,
        "The upper clip radius of " + name + " is " + text(options.clip_high) + "; it must be 0 or more and finite.");
    require(options.kl_coef >= 0.0 && std::isfinite(options.kl_coef), kConfig,
            "The KL coefficient of " + name + " is " + text(options.kl_coef) + "; it must be 0 or more and finite.");
  }
  require(clip_ratio_c == 0.0 || (clip_ratio_c > 1.0 && std::isfinite(clip_ratio_c)), kConfig,
          "clip_ratio_c is " + text(clip_ratio_c) + "; it must be above 1, or 0 for no dual clip.");
  require(
      kl_normalizer == KlNormalizer::shared || loss_agg_mode == LossAggMode::seq_mean_token_mean, kConfig,
      "kl_normalizer per-class needs loss_agg_mode seq-mean-token-mean: the number of tokens of a class in a whole "
      "mini-batch is not known before the entropies of all its tokens. Use kl_normalizer shared with the other modes.");
  require(loss_agg_mode != LossAggMode::seq_mean_token_sum_norm ||
              (loss_norm_length > 0.0 && std::isfinite(loss_norm_length)),
          kConfig,
          "loss_agg_mode seq-mean-token-sum-norm divides by a constant length, but loss_norm_length is " +
              text(loss_norm_length) + "; give a number of tokens above 0, such as the longest response allowed.");
  require(std::isfinite(entropy_coeff), kConfig, "entropy_coeff is " + text(entropy_coeff) + "; it must be finite.");
  require(
      temperature > 0.0 && std::isfinite(temperature), kConfig,
      "temperature is " + text(temperature) + "; training needs one above 0 (greedy decoding is for evaluation only).");
  require(chunk_tokens >= 0, kConfig, "chunk_tokens is " + std::to_string(chunk_tokens) +
          "; it must be a number of rows above 0, or 0 for an automatic choice.");
}

EntropyTie entropy_tie_from_name(std::string_view name) {
  return from_name<EntropyTie>("entropy_tie", name, {{"gt", EntropyTie::gt}, {"ge", EntropyTie::ge}});
}

EntropySource entropy_source_from_name(std::string_view name) {
  return from_name<EntropySource>("entropy_source", name,
                                  {{"current", EntropySource::current}, {"rollout", EntropySource::rollout}});
}

EntropyScope entropy_scope_from_name(std::string_view name) {
  return from_name<EntropyScope>("entropy_scope", name, {{"response", EntropyScope::response},
                                                         {"group", EntropyScope::group},
                                                         {"batch", EntropyScope::batch}});
}

LossAggMode loss_agg_mode_from_name(std::string_view name) {
  return from_name<LossAggMode>("loss_agg_mode", name,
                                {{"token-mean", LossAggMode::token_mean},
                                 {"seq-mean-token-mean", LossAggMode::seq_mean_token_mean},
                                 {"seq-mean-token-sum", LossAggMode::seq_mean_token_sum},
                                 {"seq-mean-token-sum-norm", LossAggMode::seq_mean_token_sum_norm},
                                 {"token-sum", LossAggMode::token_sum}});
}

KlNormalizer kl_normalizer_from_name(std::string_view name) {
  return from_name<KlNormalizer>("kl_normalizer", name,
                                 {{"shared", KlNormalizer::shared}, {"per-class", KlNormalizer::per_class}});
}

KlType kl_type_from_name(std::string_view name) {
  return from_name<KlType>("kl_loss_type", name,
                           {{"k1", KlType::k1}, {"kl", KlType::k1}, {"k2", KlType::k2}, {"mse", KlType::k2},
                            {"k3", KlType::k3}, {"low_var_kl", KlType::k3}, {"abs", KlType::abs},
                            {"k3+", KlType::k3_plus}, {"low_var_kl+", KlType::k3_plus}});
}

}  // namespace archer
