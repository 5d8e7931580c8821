// The two flows of the head's loss on a device (one pass, or statistics - decision - gradient); see head_loss.h.
#include "loss/head_loss.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "core/error.h"
#include "loss/head_run.h"
#include "loss/row_weights.h"

namespace archer {
namespace {

constexpr const char* kDevice = "ARCHER_E_DEVICE";

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

// One pass: the device decides, the host only queues. The first num_live rows may have a gradient.
void decide_on_device(HeadRun& run, const LossBatch& batch, const LossOptions& options,
                      const HeadLossOptions& head_options, const TokenLossEvaluator<float>& evaluator,
                      int64_t num_live) {
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

  for_chunks(0, num_live, run.chunk(), [&](int64_t begin, int64_t count) {
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
    if (head_options.compact_clipped) {
      run.close_gaps_and_multiply(run.active_rows());
    } else {
      run.multiply_all();
    }
  });
  for_chunks(num_live, run.num_rows(), run.chunk(), [&](int64_t begin, int64_t count) {
    run.logits(begin, count);
    run.statistics();
  });
  run.fetch(0, run.num_rows());
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

HeadLossResult head_loss_on(const DeviceHead& head, const LossBatch& batch, const LossOptions& options,
                            const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  TokenLossEvaluator<float> evaluator(batch, options);
  check_head(head, batch.loss_mask.size(), batch.ids.size());
  check_options(options.temperature, head_options);
  const bool wants_gradients = head.grad_head_VH != nullptr;
  const bool one_pass = evaluator.unit() == DecisionUnit::token;

  // The tokens in the loss; those that cannot have a gradient last, where the device decides.
  std::vector<int32_t> tokens, idle;
  for (const int64_t t : evaluator.loss_rows()) {
    const auto at = static_cast<size_t>(t);
    const double advantage = batch.advantages[static_cast<size_t>(evaluator.response_of_token()[at])];
    const bool live = !one_pass || (wants_gradients &&
                                    may_have_gradient(options, advantage, evaluator.result().classes[at],
                                                      options.entropy_source == EntropySource::rollout));
    (live ? tokens : idle).push_back(static_cast<int32_t>(t));
  }
  const auto num_live = static_cast<int64_t>(tokens.size());
  tokens.insert(tokens.end(), idle.begin(), idle.end());
  check_ids(batch.ids, tokens, head.vocabulary);
  if (wants_gradients) zero_grad_hidden(head, workspace.device());

  HeadLossResult result;
  result.log_probs.assign(batch.loss_mask.size(), 0.0);
  result.entropies.assign(batch.loss_mask.size(), 0.0);
  std::vector<float> log_probs(batch.loss_mask.size(), 0.0f), entropies(batch.loss_mask.size(), 0.0f);
  const auto num_rows = static_cast<int64_t>(tokens.size());
  int64_t backward_rows = 0;
  if (num_rows > 0) {
    HeadRun run(head, batch.ids, options.temperature, tokens, head_options, workspace, control);
    const auto keep = [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const auto t = static_cast<size_t>(tokens[static_cast<size_t>(k)]);
        log_probs[t] = run.stats[static_cast<size_t>(k)].log_prob;
        entropies[t] = run.stats[static_cast<size_t>(k)].entropy;
        result.log_probs[t] = static_cast<double>(log_probs[t]);
        result.entropies[t] = static_cast<double>(entropies[t]);
      }
    };
    if (one_pass) {
      decide_on_device(run, batch, options, head_options, evaluator, num_live);
      keep(0, num_rows);
      evaluator.evaluate(0, static_cast<int64_t>(log_probs.size()), log_probs.data(), entropies.data());
      backward_rows = run.backward_rows();
    } else {
      std::vector<int32_t> too_long;  // tokens of segments beyond a chunk, whose gradients come last
      int64_t begin = 0;
      for (const int64_t end : segment_ends(tokens, evaluator.response_of_token(), evaluator.unit(), run.chunk())) {
        for_chunks(begin, end, run.chunk(), [&](int64_t at, int64_t count) {
          run.logits(at, count);
          run.statistics();
        });
        run.fetch(begin, end);
        keep(begin, end);
        const int32_t first = tokens[static_cast<size_t>(begin)], past = tokens[static_cast<size_t>(end - 1)] + 1;
        evaluator.evaluate(first, past, log_probs.data() + first, entropies.data() + first);
        const auto& terms = evaluator.result();
        if (wants_gradients && end - begin <= run.chunk()) {
          const Coefficients c =
              chunk_coefficients(tokens, begin, end - begin, terms.grad_log_prob, terms.grad_entropy);
          run.gradient(c.active, c.grad_log_prob, c.grad_entropy);
        } else if (wants_gradients) {
          too_long.insert(too_long.end(), tokens.begin() + begin, tokens.begin() + end);
        }
        begin = end;
      }
      HeadLossOptions same_chunk = head_options;
      same_chunk.chunk_tokens = run.chunk();
      backward_rows = run.backward_rows() +
                      recompute_backward(head, batch.ids, options.temperature, too_long,
                                         evaluator.result().grad_log_prob, evaluator.result().grad_entropy, same_chunk,
                                         workspace, control);
    }
    workspace.device().synchronize();
  }

  TokenLossResult<float> terms = evaluator.take_result();
  result.loss = terms.loss;
  result.classes = std::move(terms.classes);
  result.thresholds = std::move(terms.thresholds);
  result.sums = terms.sums;
  result.backward_rows = backward_rows;
  return result;
}

}  // namespace

HeadLossResult head_loss(const DeviceHead& head, const LossBatch& batch, const LossOptions& options,
                         const HeadLossOptions& head_options, HeadWorkspace& workspace, const JobControl* control) {
  return translated([&] { return head_loss_on(head, batch, options, head_options, workspace, control); });
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
    for (const RowStats& stats : run.stats) {
      scores.log_probs.push_back(static_cast<double>(stats.log_prob));
      scores.entropies.push_back(static_cast<double>(stats.entropy));
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
