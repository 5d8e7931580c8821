// Weights, classes, per-token terms and their sums; see token_loss.h.
#include "loss/token_loss.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/error.h"
#include "loss/token_classes.h"

namespace archer {
namespace {

void check_size(const char* field, size_t size, size_t expected, const char* per) {
  require(size == expected, kShape, std::string(field) + " holds " + std::to_string(size) + " values, expected " +
          std::to_string(expected) + ", one per " + per + ".");
}

std::string place(int64_t token, int32_t response) {
  return "[" + std::to_string(token) + "] (response " + std::to_string(response) + ")";
}

// 1 / n, and 0 for the empty class or response, which contributes nothing.
double reciprocal(double n) { return n > 0 ? 1.0 / n : 0.0; }

}  // namespace

ClassSums& ClassSums::operator+=(const ClassSums& other) {
  tokens += other.tokens;
  clipped += other.clipped;
  dual_clipped += other.dual_clipped;
  entropy += other.entropy;
  pg_loss += other.pg_loss;
  kl += other.kl;
  ratio += other.ratio;
  ppo_kl += other.ppo_kl;
  return *this;
}

ClassSums LossSums::total() const {
  ClassSums sum = classes[kKnowledge];
  return sum += classes[kReasoning];
}

LossSums& LossSums::operator+=(const LossSums& other) {
  for (int c = 0; c < kNumClasses; ++c) classes[c] += other.classes[c];
  responses += other.responses;
  responses_without_loss_tokens += other.responses_without_loss_tokens;
  thresholds += other.thresholds;
  threshold_sum += other.threshold_sum;
  threshold_min = std::min(threshold_min, other.threshold_min);
  threshold_max = std::max(threshold_max, other.threshold_max);
  pg_loss += other.pg_loss;
  kl_loss += other.kl_loss;
  entropy_loss += other.entropy_loss;
  return *this;
}

template <typename F>
TokenLossEvaluator<F>::TokenLossEvaluator(const LossBatch& batch, const LossOptions& options)
    : batch_(batch), options_(options) {
  options_.validate();
  validate_batch();

  const size_t num_tokens = batch_.loss_mask.size(), num_responses = batch_.lengths.size();
  result_.grad_log_prob.assign(num_tokens, F(0));
  if (options_.entropy_coeff != 0) result_.grad_entropy.assign(num_tokens, F(0));
  result_.classes.assign(num_tokens, kNotInLoss);
  result_.thresholds.assign(num_responses, std::numeric_limits<double>::quiet_NaN());
  for (auto& counts : num_class_tokens_) counts.assign(num_responses, 0);
  result_.sums.responses = static_cast<int64_t>(num_responses);
  result_.sums.responses_without_loss_tokens = std::count(num_loss_tokens_.begin(), num_loss_tokens_.end(), 0);

  if (!batch_.thresholds.empty()) {
    for (size_t i = 0; i < num_responses; ++i) {
      if (num_loss_tokens_[i] > 0) result_.thresholds[i] = batch_.thresholds[i];
    }
  }
  const bool counts_classes = options_.kl_normalizer == KlNormalizer::per_class && options_.has_kl();
  if (options_.entropy_source == EntropySource::rollout) {
    if (batch_.thresholds.empty()) {
      result_.thresholds = class_thresholds(batch_.old_entropies, batch_.loss_mask, batch_.lengths, batch_.group_ids,
                                            options_.rho, options_.entropy_scope);
    }
    for (const int64_t t : loss_rows_) {
      const int32_t i = response_of_token_[t];
      result_.classes[t] = token_class(batch_.old_entropies[t], result_.thresholds[i], options_.entropy_tie);
      ++num_class_tokens_[result_.classes[t]][i];
    }
  } else if (!batch_.thresholds.empty()) {
    unit_ = counts_classes ? DecisionUnit::response : DecisionUnit::token;
  } else {
    unit_ = options_.entropy_scope == EntropyScope::response ? DecisionUnit::response : DecisionUnit::batch;
  }
}

template <typename F>
void TokenLossEvaluator<F>::validate_batch() {
  const size_t num_responses = batch_.lengths.size(), num_tokens = batch_.loss_mask.size();
  num_loss_tokens_.assign(num_responses, 0);
  response_of_token_.reserve(num_tokens);
  for (size_t i = 0; i < num_responses; ++i) {
    const int32_t length = batch_.lengths[i];
    require(length >= 0, kShape, "lengths[" + std::to_string(i) + "] is " + std::to_string(length) + ", below 0.");
    require(response_of_token_.size() + static_cast<size_t>(length) <= num_tokens, kShape,
            "The lengths sum to more than the " + std::to_string(num_tokens) + " tokens of loss_mask.");
    response_of_token_.insert(response_of_token_.end(), static_cast<size_t>(length), static_cast<int32_t>(i));
  }
  require(response_of_token_.size() == num_tokens, kShape,
          "The lengths sum to " + std::to_string(response_of_token_.size()) + ", but loss_mask holds " +
              std::to_string(num_tokens) + " tokens.");
  check_size("old_log_probs", batch_.old_log_probs.size(), num_tokens, "token");
  check_size("advantages", batch_.advantages.size(), num_responses, "response");
  const bool from_rollout = options_.entropy_source == EntropySource::rollout;
  if (from_rollout || !batch_.old_entropies.empty()) {
    check_size("old_entropies", batch_.old_entropies.size(), num_tokens, "token");
  }
  const bool has_ref = options_.has_kl() || !batch_.ref_log_probs.empty();
  if (has_ref) check_size("ref_log_probs", batch_.ref_log_probs.size(), num_tokens, "token");
  const bool own_thresholds = batch_.thresholds.empty();
  if (!own_thresholds) check_size("thresholds", batch_.thresholds.size(), num_responses, "response");
  const bool needs_groups = own_thresholds && options_.entropy_scope == EntropyScope::group;
  if (needs_groups || !batch_.group_ids.empty()) {
    check_size("group_ids", batch_.group_ids.size(), num_responses, "response");
  }

  for (size_t t = 0; t < num_tokens; ++t) {
    if (batch_.loss_mask[t] == 0) continue;
    const int32_t i = response_of_token_[t];
    loss_rows_.push_back(static_cast<int64_t>(t));
    ++num_loss_tokens_[i];
    const auto check_finite = [&](const char* field, double value) {
      if (!std::isfinite(value)) {
        throw ArcherError(kNumeric, field + place(static_cast<int64_t>(t), i) + " is " + std::to_string(value) +
                          ", but the token is in the loss.");
      }
    };
    check_finite("old_log_probs", batch_.old_log_probs[t]);
    if (has_ref) check_finite("ref_log_probs", batch_.ref_log_probs[t]);
    if (from_rollout) check_finite("old_entropies", batch_.old_entropies[t]);
  }
  for (size_t i = 0; i < num_responses; ++i) {
    if (num_loss_tokens_[i] == 0) continue;
    require(std::isfinite(batch_.advantages[i]), kNumeric, "advantages[" + std::to_string(i) + "] is " +
            std::to_string(batch_.advantages[i]) + ", but the response has tokens in the loss.");
    require(own_thresholds || !std::isnan(batch_.thresholds[i]), kNumeric, "thresholds[" + std::to_string(i) +
            "] is NaN, but the response has tokens in the loss.");
  }

  const Denominators& whole = batch_.denominators;
  require(std::isfinite(whole.sequences) && whole.sequences >= static_cast<double>(num_responses), kShape,
          "denominators.sequences is " + std::to_string(whole.sequences) + ", but this micro-batch alone holds " +
          std::to_string(num_responses) + " responses; it must count the whole mini-batch.");
  require(std::isfinite(whole.loss_tokens) && whole.loss_tokens >= static_cast<double>(loss_rows_.size()), kShape,
          "denominators.loss_tokens is " + std::to_string(whole.loss_tokens) + ", but this micro-batch alone holds " +
          std::to_string(loss_rows_.size()) + " tokens in the loss; it must count the whole mini-batch.");
  // A micro-batch cannot know the quantile of its mini-batch; using its own would make the loss depend on the split.
  require(!own_thresholds || options_.entropy_scope == EntropyScope::response ||
              whole.loss_tokens == static_cast<double>(loss_rows_.size()),
          kShape,
          "entropy_scope group and batch need thresholds computed over the whole mini-batch (" +
              std::to_string(static_cast<int64_t>(whole.loss_tokens)) +
              " tokens in the loss) when a micro-batch holds only " + std::to_string(loss_rows_.size()) + " of them.");
}

template <typename F>
void TokenLossEvaluator<F>::set_classes(int64_t begin, int64_t end, const F* entropies) {
  if (begin == end) return;
  const int32_t first = response_of_token_[begin], last = response_of_token_[end - 1];
  if (batch_.thresholds.empty()) {
    // Lengths of the responses within [begin, end): evaluate() may leave out masked tokens at both ends.
    std::vector<int32_t> lengths(static_cast<size_t>(last - first + 1), 0);
    for (int64_t t = begin; t < end; ++t) ++lengths[static_cast<size_t>(response_of_token_[t] - first)];
    const auto group_ids = batch_.group_ids.empty()
                               ? batch_.group_ids
                               : batch_.group_ids.subspan(static_cast<size_t>(first), lengths.size());
    const auto size = static_cast<size_t>(end - begin);
    const std::vector<double> own = class_thresholds(
        std::span<const F>(entropies, size), batch_.loss_mask.subspan(static_cast<size_t>(begin), size),
        std::span<const int32_t>(lengths), group_ids, options_.rho, options_.entropy_scope);
    std::copy(own.begin(), own.end(), result_.thresholds.begin() + first);
  }
  for (int64_t t = begin; t < end; ++t) {
    if (batch_.loss_mask[t] == 0) continue;
    const int32_t i = response_of_token_[t];
    result_.classes[t] = token_class(entropies[t - begin], result_.thresholds[i], options_.entropy_tie);
    ++num_class_tokens_[result_.classes[t]][i];
  }
}

template <typename F>
void TokenLossEvaluator<F>::evaluate(int64_t begin, int64_t end, const F* log_probs, const F* entropies) {
  for (int64_t t = begin; t < end; ++t) {
    if (batch_.loss_mask[t] == 0) continue;
    const F values[] = {log_probs[t - begin], entropies[t - begin]};
    for (int k = 0; k < 2; ++k) {
      if (!std::isfinite(values[k])) {
        throw ArcherError(kNumeric, (k == 0 ? "log_probs" : "entropies") + place(t, response_of_token_[t]) + " is " +
                          std::to_string(values[k]) + ", but the token is in the loss.");
      }
    }
  }
  if (options_.entropy_source == EntropySource::current) set_classes(begin, end, entropies);

  ClipEdges<F> edges[kNumClasses];
  for (int c = 0; c < kNumClasses; ++c) {
    edges[c] = {static_cast<F>(1.0 - options_.classes[c].clip_low), static_cast<F>(1.0 + options_.classes[c].clip_high),
                static_cast<F>(options_.clip_ratio_c)};
  }
  const double per_sequence = reciprocal(batch_.denominators.sequences);
  const double alpha = options_.entropy_coeff;
  LossSums& sums = result_.sums;
  for (int64_t t = begin; t < end; ++t) {
    if (batch_.loss_mask[t] == 0) continue;
    const int32_t i = response_of_token_[t];
    const uint8_t c = result_.classes[t];

    double weight = 1.0;
    switch (options_.loss_agg_mode) {
      case LossAggMode::token_mean: weight = reciprocal(batch_.denominators.loss_tokens); break;
      case LossAggMode::seq_mean_token_mean:
        weight = per_sequence * reciprocal(static_cast<double>(num_loss_tokens_[i]));
        break;
      case LossAggMode::seq_mean_token_sum: weight = per_sequence; break;
      case LossAggMode::seq_mean_token_sum_norm: weight = per_sequence / options_.loss_norm_length; break;
      case LossAggMode::token_sum: break;
    }
    const double kl_weight = options_.kl_normalizer == KlNormalizer::per_class
                                 ? per_sequence * reciprocal(static_cast<double>(num_class_tokens_[c][i]))
                                 : weight;

    const F log_prob = log_probs[t - begin], entropy = entropies[t - begin];
    const F old_log_prob = static_cast<F>(batch_.old_log_probs[t]);
    const PolicyTerm<F> policy = policy_term(log_prob, old_log_prob, static_cast<F>(batch_.advantages[i]), edges[c]);
    double grad = weight * static_cast<double>(policy.grad);
    ClassSums& own = sums.classes[c];
    if (!batch_.ref_log_probs.empty()) {
      const KlTerm<F> kl = kl_term(log_prob, static_cast<F>(batch_.ref_log_probs[t]), options_.kl_type);
      own.kl += static_cast<double>(kl.value);
      const double coefficient = kl_weight * options_.classes[c].kl_coef;
      sums.kl_loss += coefficient * static_cast<double>(kl.value);
      grad += coefficient * static_cast<double>(kl.grad);
    }
    result_.grad_log_prob[t] = static_cast<F>(grad);
    sums.pg_loss += weight * static_cast<double>(policy.loss);
    if (alpha != 0) {
      result_.grad_entropy[t] = static_cast<F>(-alpha * weight);
      sums.entropy_loss -= alpha * weight * static_cast<double>(entropy);
    }
    ++own.tokens;
    own.clipped += policy.clipped;
    own.dual_clipped += policy.dual_clipped;
    own.entropy += static_cast<double>(entropy);
    own.pg_loss += static_cast<double>(policy.loss);
    own.ratio += static_cast<double>(policy.ratio);
    own.ppo_kl += static_cast<double>(old_log_prob - log_prob);
  }
  result_.loss = sums.pg_loss + sums.kl_loss + sums.entropy_loss;
}

template <typename F>
TokenLossResult<F> TokenLossEvaluator<F>::take_result() {
  LossSums& sums = result_.sums;
  for (const double threshold : result_.thresholds) {
    if (std::isnan(threshold)) continue;
    ++sums.thresholds;
    sums.threshold_sum += threshold;
    sums.threshold_min = std::min(sums.threshold_min, threshold);
    sums.threshold_max = std::max(sums.threshold_max, threshold);
  }
  return std::move(result_);
}

template <typename F>
TokenLossResult<F> token_loss(std::span<const F> log_probs_T, std::span<const F> entropies_T, const LossBatch& batch,
                              const LossOptions& options) {
  TokenLossEvaluator<F> evaluator(batch, options);
  check_size("log_probs", log_probs_T.size(), batch.loss_mask.size(), "token");
  check_size("entropies", entropies_T.size(), batch.loss_mask.size(), "token");
  evaluator.evaluate(0, static_cast<int64_t>(log_probs_T.size()), log_probs_T.data(), entropies_T.data());
  return evaluator.take_result();
}

template class TokenLossEvaluator<float>;
template class TokenLossEvaluator<double>;
template TokenLossResult<float> token_loss(std::span<const float>, std::span<const float>, const LossBatch&,
                                           const LossOptions&);
template TokenLossResult<double> token_loss(std::span<const double>, std::span<const double>, const LossBatch&,
                                            const LossOptions&);

}  // namespace archer
