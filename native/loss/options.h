// What the loss can be told: the options that the paper's and the reference code's presets are made of (archer.md 2-4).
// The names that verl uses (token-mean, low_var_kl, ...) are read by the *_from_name functions.
#pragma once
#include <cstdint>
#include <string_view>

#include "loss/token_math.h"

namespace archer {

enum class EntropyTie { gt, ge };  // reasoning iff H > q (reference code), or H >= q (paper)
enum class EntropySource { current, rollout };  // H of the policy trained (reference) or of the sampling one (paper)
enum class EntropyScope { response, group, batch };
enum class LossAggMode { token_mean, seq_mean_token_mean, seq_mean_token_sum, seq_mean_token_sum_norm, token_sum };
enum class KlNormalizer { shared, per_class };  // pg's denominator (paper), or one per response and class (reference)

// Index of a token's class in every per-class array; kNotInLoss marks tokens that the loss leaves out.
inline constexpr uint8_t kKnowledge = 0, kReasoning = 1, kNotInLoss = 255;
inline constexpr int kNumClasses = 2;

struct ClassOptions {
  double clip_low = 0.2, clip_high = 0.2;  // epsilon on each side: r is clipped to [1 - clip_low, 1 + clip_high]
  double kl_coef = 0.0;                    // beta
};

// Defaults: the paper's form.
struct LossOptions {
  double rho = 0.8;  // the quantile of the entropies that parts the classes
  EntropyTie entropy_tie = EntropyTie::ge;
  EntropySource entropy_source = EntropySource::rollout;
  EntropyScope entropy_scope = EntropyScope::response;
  ClassOptions classes[kNumClasses] = {{0.2, 0.2, 0.001}, {0.5, 0.5, 0.0}};  // knowledge, reasoning
  double clip_ratio_c = 0.0;  // c of the dual clip; 0 = no dual clip
  KlType kl_type = KlType::k3;
  KlNormalizer kl_normalizer = KlNormalizer::shared;
  LossAggMode loss_agg_mode = LossAggMode::token_mean;
  double loss_norm_length = 0.0;  // the constant length of seq_mean_token_sum_norm, in tokens
  double entropy_coeff = 0.0;     // alpha: the loss gets -alpha H, with the weight of pg
  double temperature = 1.0;       // logits are divided by it; the one that the responses were sampled at
  int64_t chunk_tokens = 0;       // rows of logits held at once; 0 = as many as fit in 64 MiB, at most 512

  const ClassOptions& knowledge() const { return classes[kKnowledge]; }
  const ClassOptions& reasoning() const { return classes[kReasoning]; }
  ClassOptions& knowledge() { return classes[kKnowledge]; }
  ClassOptions& reasoning() { return classes[kReasoning]; }
  bool has_kl() const { return knowledge().kl_coef != 0.0 || reasoning().kl_coef != 0.0; }

  // Throws ARCHER_E_CONFIG with the option, its value and what it may be.
  void validate() const;
};

// Both spellings are read: token-mean and token_mean. Unknown names throw ARCHER_E_CONFIG with the known ones.
EntropyTie entropy_tie_from_name(std::string_view name);
EntropySource entropy_source_from_name(std::string_view name);
EntropyScope entropy_scope_from_name(std::string_view name);
LossAggMode loss_agg_mode_from_name(std::string_view name);
KlNormalizer kl_normalizer_from_name(std::string_view name);
KlType kl_type_from_name(std::string_view name);  // k1/kl, k2/mse, k3/low_var_kl, abs, k3+/low_var_kl+

}  // namespace archer
