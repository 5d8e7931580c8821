// From per-token log-probabilities and entropies to the loss and its derivatives (archer.md sections 2-5):
//   L = sum_t w_pg (pg_t - alpha H_t) + w_kl beta_class kl_t
// Every weight holds the denominators of the whole mini-batch, so that losses, derivatives and sums of micro-batches
// add up.
// Legend: T response tokens of this micro-batch end to end, N responses; tokens whose loss_mask is 0 are never read.
#pragma once
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "loss/options.h"

namespace archer {

// Those of the whole mini-batch, counted before its first micro-batch runs.
struct Denominators {
  double sequences = 0;    // responses, those without tokens in the loss included
  double tokens = 0;       // response tokens, masked ones included
  double loss_tokens = 0;  // tokens with loss_mask != 0
};

struct LossBatch {
  std::span<const int32_t> ids;             // [T] sampled token ids (fused_loss only)
  std::span<const int32_t> lengths;         // [N] tokens per response, sum T; 0 allowed
  std::span<const int32_t> group_ids;       // [N], read for entropy_scope group without thresholds
  std::span<const uint8_t> loss_mask;       // [T], 0 = not in the loss
  std::span<const double> old_log_probs;    // [T], of the policy before the update
  std::span<const double> old_entropies;    // [T], read for entropy_source rollout
  std::span<const double> ref_log_probs;  // [T], needed where a KL coefficient is not 0; may be given for the KL metric
  std::span<const double> advantages;       // [N]
  std::span<const double> thresholds;       // [N] or empty: class thresholds of class_thresholds(), instead of own ones
  Denominators denominators;
};

// Plain sums over the tokens in the loss, of one class or of both.
struct ClassSums {
  int64_t tokens = 0;
  int64_t clipped = 0, dual_clipped = 0;  // pg_clipfrac, pg_clipfrac_lower times tokens
  double entropy = 0, pg_loss = 0, kl = 0, ratio = 0, ppo_kl = 0;  // ppo_kl: sum of logp_old - logp; kl without beta

  ClassSums& operator+=(const ClassSums& other);
};

struct LossSums {
  ClassSums classes[kNumClasses];  // knowledge, reasoning
  int64_t responses = 0, responses_without_loss_tokens = 0;
  int64_t thresholds = 0;  // responses with one; sum, min and max are over these
  double threshold_sum = 0, threshold_min = std::numeric_limits<double>::infinity(),
         threshold_max = -std::numeric_limits<double>::infinity();
  double pg_loss = 0, kl_loss = 0, entropy_loss = 0;  // the weighted parts of the loss, beta and -alpha included

  ClassSums total() const;
  LossSums& operator+=(const LossSums& other);  // micro-batches of one mini-batch
};

template <typename F>
struct TokenLossResult {
  double loss = 0;
  std::vector<F> grad_log_prob;     // [T] dL/dlogp, the KL's share included
  std::vector<F> grad_entropy;      // [T] dL/dH = -alpha w_pg; empty where alpha is 0
  std::vector<uint8_t> classes;     // [T] kKnowledge, kReasoning or kNotInLoss
  std::vector<double> thresholds;   // [N], NaN for a response without tokens in the loss
  LossSums sums;
};

// How much of a batch must be seen at once: a class depends on the entropies that share its threshold, and a per-class
// KL on the number of tokens of the class in the response.
enum class DecisionUnit { token, response, batch };

// The same, fed piece by piece while the log-probabilities are being made (fused_loss). F is the arithmetic of the
// per-token terms; weights and sums are float64. The spans of `batch` must outlive the evaluator.
template <typename F>
class TokenLossEvaluator {
 public:
  // Throws ARCHER_E_CONFIG (options), ARCHER_E_SHAPE (naming the field) or ARCHER_E_NUMERIC (naming the position).
  TokenLossEvaluator(const LossBatch& batch, const LossOptions& options);

  DecisionUnit unit() const { return unit_; }

  // Tokens begin..end-1, whole units, in order; log_probs and entropies start at token `begin`.
  // Throws ARCHER_E_NUMERIC where one of them is not finite for a token in the loss.
  void evaluate(int64_t begin, int64_t end, const F* log_probs, const F* entropies);

  // What has been evaluated so far; complete once evaluate() has seen every token in the loss.
  const TokenLossResult<F>& result() const { return result_; }
  TokenLossResult<F> take_result();

  const std::vector<int64_t>& loss_rows() const { return loss_rows_; }              // tokens in the loss, ascending
  const std::vector<int32_t>& response_of_token() const { return response_of_token_; }  // [T]

 private:
  void validate_batch();
  void set_classes(int64_t begin, int64_t end, const F* entropies);

  LossBatch batch_;
  LossOptions options_;
  DecisionUnit unit_ = DecisionUnit::token;
  std::vector<int64_t> loss_rows_;
  std::vector<int32_t> response_of_token_;
  std::vector<int64_t> num_loss_tokens_;                  // [N]
  std::vector<int64_t> num_class_tokens_[kNumClasses];  // [N] each, filled where the classes of a response are known
  TokenLossResult<F> result_;
};

// log_probs_T, entropies_T under the policy being trained.
template <typename F>
TokenLossResult<F> token_loss(std::span<const F> log_probs_T, std::span<const F> entropies_T, const LossBatch& batch,
                              const LossOptions& options);

}  // namespace archer
