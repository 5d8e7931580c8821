// The two flows of the head's loss on a device (one pass, or statistics - decision - gradient); see head_loss.h.
#include "head/head_loss.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "core/error.h"
#include "head/head_run.h"
#include "head/row_weights.h"

namespace archer {
namespace {

// Runs `body`; errors of the device leave it with our codes.
template <typename Body>
auto translated(Body body) {
  try {
    return body();
  } catch (const DeviceError& error) {
    throw ArcherError(error.kind() == DeviceError::Kind::out_of_memory ? kOom : kDevice, error.what());
  }
}

void check_head(const DeviceHead& head, size_t num_tokens, size_t num_ids) {
  require(num_ids == num_tokens, kShape, "ids holds " + std::to_string(num_ids) + " values, expected " +
          std::to_string(num_tokens) + ", one per token.");
  require(head.num_tokens == static_cast<int64_t>(num_tokens), kShape, "hidden has " + std::to_string(head.num_tokens) +
          " rows, expected " + std::to_string(num_tokens) + ", one per token.");
  require(head.hidden_size > 0 && head.vocabulary > 0 && head.vocabulary <= INT32_MAX - 64 &&
              head.num_tokens <= INT32_MAX,
          kShape, "head_weight is [" + std::to_string(head.vocabulary) + ", " + std::to_string(head.hidden_size) +
          "] for " + std::to_string(head.num_tokens) + " tokens; sizes must be above 0 and fit in 32 bits.");
  require(head.head_VH != nullptr && (head.hidden_TH != nullptr || num_tokens == 0), kShape,
          "hidden and head_weight must be given.");
  require(head.grad_head_VH == nullptr || head.grad_hidden_TH != nullptr || num_tokens == 0, kShape,
          "grad_hidden must be given where grad_head is.");
}

void check_options(double temperature, const HeadLossOptions& options) {
  require(temperature > 0.0 && std::isfinite(temperature), kConfig, "temperature is " + std::to_string(temperature) +
          "; the head needs one above 0.");
  require(options.chunk_tokens >= 0, kConfig, "chunk_tokens is " + std::to_string(options.chunk_tokens) + ", below 0.");
}

void check_ids(std::span<const int32_t> ids_T, Tokens tokens, int64_t vocabulary) {
  for (const int32_t t : tokens) {
    const int32_t id = ids_T[static_cast<size_t>(t)];
    if (id < 0 || id >= vocabulary) {
      throw ArcherError(kShape, "ids[" + std::to_string(t) + "] is " + std::to_string(id) +
                        ", outside the vocabulary of " + std::to_string(vocabulary) + ".");
    }
  }
}

void zero_grad_hidden(const DeviceHead& head, HeadDevice& device) {
  const int64_t element = head.grad_hidden_is_float ? 4 : 2;
  if (head.num_tokens > 0)
    device.zero(head.grad_hidden_TH, static_cast<size_t>(head.num_tokens * head.hidden_size * element));
}

// body(begin, count) for the chunks of rows begin .. end - 1.
template <typename Body>
void for_chunks(int64_t begin, int64_t end, int64_t chunk, Body body) {
  for (; begin < end; begin += chunk) body(begin, std::min(chunk, end - begin));
}

// Whether a token can have a gradient at all, before its probabilities are known.
bool may_have_gradient(const LossOptions& options, double advantage, uint8_t token_class, bool class_is_known) {
  if (advantage != 0 || options.entropy_coeff != 0) return true;
  return class_is_known ? options.classes[token_class].kl_coef != 0 : options.has_kl();
}

// One pass: the device decides, the host only queues. The rows from num_idle on may have a gradient; they come last, so
// that their last products run while the host makes the result.
void decide_on_device(HeadRun& run, const LossBatch& batch, const LossOptions& options,
                      const HeadLossOptions& head_options, const TokenLossEvaluator<float>& evaluator,
                      int64_t num_idle) {
  const RowArrays& arrays = run.arrays();
  const RowWeights weights = row_weights(batch, options, evaluator.result().classes, evaluator.response_of_token());
  const auto n = static_cast<size_t>(run.num_rows());
  std::vector<float> old_log_probs(n), ref_log_probs(n), advantages(n), pg(n), kl(n);
  std::vector<uint8_t> classes(n);
  std::vector<double> thresholds(n);
  const bool by_threshold = options.entropy_source == EntropySource::current, has_kl = options.has_kl();
  for (size_t k = 0; k < n; ++k) {
    const auto t = static_cast<size_t>(run.tokens()[k]);
    const auto i = static_cast<size_t>(evaluator.response_of_token()[t]);
    old_log_probs[k] = static_cast<float>(batch.old_log_probs[t]);
    if (has_kl) ref_log_probs[k] = static_cast<float>(batch.ref_log_probs[t]);
    advantages[k] = static_cast<float>(batch.advantages[i]);
    pg[k] = static_cast<float>(weights.pg[t]);
    kl[k] = static_cast<float>(weights.kl[t]);
    classes[k] = evaluator.result().classes[t];
    thresholds[k] = evaluator.result().thresholds[i];
  }
  run.upload(arrays.old_log_probs, old_log_probs);
  if (has_kl) run.upload(arrays.ref_log_probs, ref_log_probs);
  run.upload(arrays.advantages, advantages);
  run.upload(arrays.pg_weights, pg);
  run.upload(arrays.kl_weights, kl);
  if (by_threshold) {
    run.upload(arrays.thresholds, thresholds);
  } else {
    run.upload(arrays.classes, classes);
  }

  for_chunks(0, num_idle, run.chunk(), [&](int64_t begin, int64_t count) {
    run.logits(begin, count);
    run.statistics();
  });
  if (num_idle == run.num_rows()) run.queue_fetch(0, run.num_rows());
  for_chunks(num_idle, run.num_rows(), run.chunk(), [&](int64_t begin, int64_t count) {
    run.logits(begin, count);
    HeadRowsParams p = run.params();
    p.zero_inactive = !head_options.compact_clipped;
    p.old_log_probs = arrays.old_log_probs + begin;
    p.ref_log_probs = has_kl ? arrays.ref_log_probs + begin : nullptr;
    p.advantages = arrays.advantages + begin;
    p.pg_weights = arrays.pg_weights + begin;
    p.kl_weights = arrays.kl_weights + begin;
    p.classes = by_threshold ? nullptr : arrays.classes + begin;
    p.thresholds = by_threshold ? arrays.thresholds + begin : nullptr;
    p.tie_is_reasoning = options.entropy_tie == EntropyTie::ge;
    for (int c = 0; c < kNumClasses; ++c) {
      p.edges[c] = {static_cast<float>(1.0 - options.classes[c].clip_low),
                    static_cast<float>(1.0 + options.classes[c].clip_high), static_cast<float>(options.clip_ratio_c)};
      p.kl_coef[c] = static_cast<float>(options.classes[c].kl_coef);
    }
    p.kl_type = options.kl_type;
    p.entropy_coeff = static_cast<float>(options.entropy_coeff);
    run.device().run_rows(HeadRowsMode::fused, p);
    if (begin + count == run.num_rows()) run.queue_fetch(0, run.num_rows());
    if (head_options.compact_clipped) {
      run.close_gaps_and_multiply(run.active_rows());
    } else {
      run.multiply_all();
    }
  });
}

// Ends of the segments of rows whose classes are decided together: whole responses, packed into chunks where they fit.
std::vector<int64_t> segment_ends(Tokens tokens, const std::vector<int32_t>& response_of_token, DecisionUnit unit,
                                  int64_t chunk) {
  std::vector<int64_t> ends;
  const auto n = static_cast<int64_t>(tokens.size());
  const auto response = [&](int64_t k) {
    return response_of_token[static_cast<size_t>(tokens[static_cast<size_t>(k)])];
  };
  int64_t begin = 0;
  for (int64_t next = 0; next < n;) {
    int64_t end = next + 1;  // of this response, or of everything
    while (end < n && (unit == DecisionUnit::batch || response(end) == response(next))) ++end;
    if (end - begin > chunk && next > begin) ends.push_back(begin = next);
    next = end;
  }
  if (begin < n) ends.push_back(n);
  return ends;
}

struct Coefficients {
  std::vector<int32_t> active;  // rows of the buffer
  std::vector<float> grad_log_prob, grad_entropy;  // per row of the buffer
};

// Coefficients of the rows begin .. begin + count - 1 of `tokens`, from those per token.
Coefficients chunk_coefficients(Tokens tokens, int64_t begin, int64_t count, std::span<const float> grad_log_prob_T,
                                std::span<const float> grad_entropy_T) {
  Coefficients c;
  for (int64_t j = 0; j < count; ++j) {
    const auto t = static_cast<size_t>(tokens[static_cast<size_t>(begin + j)]);
    c.grad_log_prob.push_back(grad_log_prob_T[t]);
    if (!grad_entropy_T.empty()) c.grad_entropy.push_back(grad_entropy_T[t]);
    if (c.grad_log_prob.back() != 0 || (!grad_entropy_T.empty() && c.grad_entropy.back() != 0))
      c.active.push_back(static_cast<int32_t>(j));
  }
  return c;
}

// Logits and statistics of the rows anew, then their gradients: for responses longer than a chunk.
int64_t recompute_backward(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature, Tokens tokens,
                           std::span<const float> grad_log_prob_T, std::span<const float> grad_entropy_T,
                           const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  std::vector<int32_t> active;
  for (const int32_t t : tokens) {
    const auto at = static_cast<size_t>(t);
    if (grad_log_prob_T[at] != 0 || (!grad_entropy_T.empty() && grad_entropy_T[at] != 0)) active.push_back(t);
  }
  if (active.empty()) return 0;
  HeadRun run(head, ids_T, temperature, std::move(active), head_options, workspace, control);
  for_chunks(0, run.num_rows(), run.chunk(), [&](int64_t begin, int64_t count) {
    run.logits(begin, count);
    run.statistics();
    const Coefficients c = chunk_coefficients(run.tokens(), begin, count, grad_log_prob_T, grad_entropy_T);
    run.gradient(c.active, c.grad_log_prob, c.grad_entropy);
  });
  run.fetch(0, run.num_rows());
  return run.backward_rows();
}

// Everything that a call needs until its result is made.
class Call : public PendingHeadLoss {
 public:
  Call(const DeviceHead& head, const LossBatch& batch, const LossOptions& options, const HeadLossOptions& head_options,
       HeadWorkspace& workspace, const JobControl* control)
      : head_(head), batch_(batch), options_(options), head_options_(head_options), workspace_(workspace),
        control_(control), evaluator_(batch, options), one_pass_(evaluator_.unit() == DecisionUnit::token) {
    check_head(head, batch.loss_mask.size(), batch.ids.size());
    check_options(options.temperature, head_options);
    const std::vector<int32_t> tokens = sort_tokens();
    check_ids(batch.ids, tokens, head.vocabulary);
    if (wants_gradients()) zero_grad_hidden(head_, workspace.device());
    log_probs_.assign(batch.loss_mask.size(), 0.0f);
    entropies_.assign(batch.loss_mask.size(), 0.0f);
    if (tokens.empty()) return;
    run_.emplace(head_, batch_.ids, options_.temperature, tokens, head_options_, workspace_, control_);
    if (one_pass_) {
      decide_on_device(*run_, batch_, options_, head_options_, evaluator_, num_idle_);
    } else {
      decide_on_host();
    }
  }

  HeadLossResult finish() override {
    return translated([&] {
      if (run_ && one_pass_) {
        run_->finish_fetch(0, run_->num_rows());
        keep(0, run_->num_rows());
        evaluator_.evaluate(0, static_cast<int64_t>(log_probs_.size()), log_probs_.data(), entropies_.data());
        backward_rows_ = run_->backward_rows();
      }
      TokenLossResult<float> terms = evaluator_.take_result();
      HeadLossResult result;
      result.loss = terms.loss;
      result.log_probs.assign(log_probs_.begin(), log_probs_.end());
      result.entropies.assign(entropies_.begin(), entropies_.end());
      result.classes = std::move(terms.classes);
      result.thresholds = std::move(terms.thresholds);
      result.sums = terms.sums;
      result.backward_rows = backward_rows_;
      return result;
    });
  }

 private:
  bool wants_gradients() const { return head_.grad_head_VH != nullptr; }

  // The tokens in the loss; where the device decides, those that cannot have a gradient first.
  std::vector<int32_t> sort_tokens() {
    std::vector<int32_t> live, tokens;
    for (const int64_t t : evaluator_.loss_rows()) {
      const auto at = static_cast<size_t>(t);
      const double advantage = batch_.advantages[static_cast<size_t>(evaluator_.response_of_token()[at])];
      const bool may = !one_pass_ || (wants_gradients() &&
                                      may_have_gradient(options_, advantage, evaluator_.result().classes[at],
                                                        options_.entropy_source == EntropySource::rollout));
      (may ? live : tokens).push_back(static_cast<int32_t>(t));
    }
    num_idle_ = static_cast<int64_t>(tokens.size());
    tokens.insert(tokens.end(), live.begin(), live.end());
    return tokens;
  }

  // Fetched statistics of rows begin .. end - 1, by token.
  void keep(int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const auto t = static_cast<size_t>(run_->tokens()[static_cast<size_t>(k)]);
      log_probs_[t] = run_->stats()[k].log_prob;
      entropies_[t] = run_->stats()[k].entropy;
    }
  }

  // Statistics of whole responses, the evaluator's decision, then the gradient pass.
  void decide_on_host() {
    const Tokens tokens = run_->tokens();
    const int64_t chunk = run_->chunk();
    std::vector<int32_t> too_long;  // tokens of segments beyond a chunk, whose gradients come last
    int64_t begin = 0;
    for (const int64_t end : segment_ends(tokens, evaluator_.response_of_token(), evaluator_.unit(), chunk)) {
      for_chunks(begin, end, chunk, [&](int64_t at, int64_t count) {
        run_->logits(at, count);
        run_->statistics();
      });
      run_->fetch(begin, end);
      keep(begin, end);
      const int32_t first = tokens[static_cast<size_t>(begin)], past = tokens[static_cast<size_t>(end - 1)] + 1;
      evaluator_.evaluate(first, past, log_probs_.data() + first, entropies_.data() + first);
      const auto& terms = evaluator_.result();
      if (wants_gradients() && end - begin <= chunk) {
        const Coefficients c = chunk_coefficients(tokens, begin, end - begin, terms.grad_log_prob, terms.grad_entropy);
        run_->gradient(c.active, c.grad_log_prob, c.grad_entropy);
      } else if (wants_gradients()) {
        too_long.insert(too_long.end(), tokens.begin() + begin, tokens.begin() + end);
      }
      begin = end;
    }
    HeadLossOptions same_chunk = head_options_;
    same_chunk.chunk_tokens = chunk;
    backward_rows_ = run_->backward_rows() +
                     recompute_backward(head_, batch_.ids, options_.temperature, too_long,
                                        evaluator_.result().grad_log_prob, evaluator_.result().grad_entropy, same_chunk,
                                        workspace_, control_);
  }

  DeviceHead head_;
  LossBatch batch_;
  LossOptions options_;
  HeadLossOptions head_options_;
  HeadWorkspace& workspace_;
  const JobControl* control_;
  TokenLossEvaluator<float> evaluator_;
  bool one_pass_;
  std::optional<HeadRun> run_;
  std::vector<float> log_probs_, entropies_;  // [T]
  int64_t num_idle_ = 0, backward_rows_ = 0;
};

}  // namespace

HeadLossResult head_loss(const DeviceHead& head, const LossBatch& batch, const LossOptions& options,
                         const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  HeadLossResult result = begin_head_loss(head, batch, options, head_options, workspace, control)->finish();
  translated([&] { workspace.device().synchronize(); });
  return result;
}

std::unique_ptr<PendingHeadLoss> begin_head_loss(const DeviceHead& head, const LossBatch& batch,
                                                 const LossOptions& options, const HeadLossOptions& head_options,
                                                 HeadWorkspace& workspace, const JobControl* control) {
  return translated([&]() -> std::unique_ptr<PendingHeadLoss> {
    return std::make_unique<Call>(head, batch, options, head_options, workspace, control);
  });
}

DeviceScores score_tokens_on(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature,
                             const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  check_options(temperature, head_options);
  check_head(head, ids_T.size(), ids_T.size());
  std::vector<int32_t> tokens(ids_T.size());
  for (size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<int32_t>(t);
  check_ids(ids_T, tokens, head.vocabulary);
  DeviceScores scores;
  if (tokens.empty()) return scores;
  return translated([&] {
    HeadRun run(head, ids_T, temperature, std::move(tokens), head_options, workspace, control);
    for_chunks(0, run.num_rows(), run.chunk(), [&](int64_t begin, int64_t count) {
      run.logits(begin, count);
      run.statistics();
    });
    run.fetch(0, run.num_rows());
    for (int64_t k = 0; k < run.num_rows(); ++k) {
      scores.log_probs.push_back(static_cast<double>(run.stats()[k].log_prob));
      scores.entropies.push_back(static_cast<double>(run.stats()[k].entropy));
    }
    return scores;
  });
}

int64_t backward_on(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature,
                    std::span<const float> grad_log_prob_T, std::span<const float> grad_entropy_T,
                    const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  check_options(temperature, head_options);
  check_head(head, grad_log_prob_T.size(), ids_T.size());
  require(grad_entropy_T.empty() || grad_entropy_T.size() == ids_T.size(), kShape, "grad_entropy holds " +
          std::to_string(grad_entropy_T.size()) + " values, expected " + std::to_string(ids_T.size()) + " or none.");
  require(head.grad_head_VH != nullptr, kShape, "grad_head must be given.");
  std::vector<int32_t> tokens;
  for (size_t t = 0; t < ids_T.size(); ++t) {
    if (grad_log_prob_T[t] != 0 || (!grad_entropy_T.empty() && grad_entropy_T[t] != 0))
      tokens.push_back(static_cast<int32_t>(t));
  }
  check_ids(ids_T, tokens, head.vocabulary);
  return translated([&] {
    zero_grad_hidden(head, workspace.device());
    const int64_t rows = recompute_backward(head, ids_T, temperature, tokens, grad_log_prob_T, grad_entropy_T,
                                            head_options, workspace, control);
    workspace.device().synchronize();
    return rows;
  });
}

}  // namespace archer
