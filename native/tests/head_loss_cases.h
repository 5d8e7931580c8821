// The case list of the head's loss on a device (head/head_loss.h): loss, log-probabilities, entropies, classes, sums
// and both gradients against float64 (exact_row.h, token_loss<double>, plain loops for the products).
// Legend: T tokens, H hidden size, V vocabulary.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "head/head_loss.h"
#include "loss/token_classes.h"
#include "tests/exact_row.h"
#include "tests/head_row_cases.h"

namespace archer::head_cases {

struct Batch {
  int64_t hidden_size = 0, vocabulary = 0;
  std::vector<uint16_t> hidden_TH, head_VH;  // bfloat16
  std::vector<int32_t> ids, lengths, group_ids;
  std::vector<uint8_t> mask;
  std::vector<double> old_log_probs, old_entropies, ref_log_probs, advantages, thresholds;
  Denominators denominators;

  LossBatch view() const {
    return {ids, lengths, group_ids, mask, old_log_probs, old_entropies, ref_log_probs, advantages, thresholds,
            denominators};
  }
  size_t num_tokens() const { return mask.size(); }
};

// log-probability, entropy and their statistics in float64, per token.
inline std::vector<ExactRow> exact_stats(const Batch& batch, double temperature,
                                                   std::vector<std::vector<double>>* logits = nullptr) {
  std::vector<ExactRow> stats;
  const auto H = static_cast<size_t>(batch.hidden_size), V = static_cast<size_t>(batch.vocabulary);
  std::vector<double> row(V);
  for (size_t t = 0; t < batch.num_tokens(); ++t) {
    for (size_t v = 0; v < V; ++v) {
      row[v] = 0;
      for (size_t h = 0; h < H; ++h) {
        row[v] += static_cast<double>(row_cases::widen_bf16(batch.hidden_TH[t * H + h])) *
                  static_cast<double>(row_cases::widen_bf16(batch.head_VH[v * H + h]));
      }
    }
    stats.push_back(exact_row(row.data(), batch.vocabulary, batch.ids[t], temperature));
    if (logits) logits->push_back(row);
  }
  return stats;
}

// Responses of 9, 0, 31, 1, 17, 12 (none of them in the loss), 22 tokens.
inline Batch make_batch(int64_t vocabulary, int64_t hidden_size, uint64_t seed, double temperature) {
  Batch batch;
  batch.vocabulary = vocabulary;
  batch.hidden_size = hidden_size;
  batch.lengths = {9, 0, 31, 1, 17, 12, 22};
  batch.group_ids = {0, 0, 1, 1, 1, 2, 2};
  batch.advantages = {1.0, -1.0, -0.8, 1.3, 0.0, 0.5, 1.1};
  size_t num_tokens = 0;
  for (const int32_t length : batch.lengths) num_tokens += static_cast<size_t>(length);
  const auto bf16 = [&](double scale) {
    return row_cases::round_bf16(static_cast<float>(row_cases::noise(seed) * scale));
  };
  batch.hidden_TH.resize(num_tokens * static_cast<size_t>(hidden_size));
  batch.head_VH.resize(static_cast<size_t>(vocabulary * hidden_size));
  for (auto& value : batch.head_VH) value = bf16(0.7);
  for (size_t t = 0; t < num_tokens; ++t) {
    const double scale = 0.2 + 0.15 * static_cast<double>(t % 11);  // flat and peaked rows
    for (int64_t h = 0; h < hidden_size; ++h)
      batch.hidden_TH[t * static_cast<size_t>(hidden_size) + static_cast<size_t>(h)] = bf16(scale);
  }
  int64_t loss_tokens = 0;
  for (size_t i = 0, t = 0; i < batch.lengths.size(); ++i) {
    for (int32_t j = 0; j < batch.lengths[i]; ++j, ++t) {
      batch.mask.push_back(i != 5 && j % 7 != 3);
      loss_tokens += batch.mask.back();
      batch.ids.push_back(static_cast<int32_t>((seed += 0x9E3779B97F4A7C15u) >> 33) % static_cast<int32_t>(vocabulary));
    }
  }
  const auto stats = exact_stats(batch, temperature);
  for (size_t t = 0; t < num_tokens; ++t) {
    const double spread = t % 5 == 0 ? 1.0 : 0.15;
    batch.old_log_probs.push_back(std::min(-1e-3, stats[t].log_prob + row_cases::noise(seed) * spread));
    batch.ref_log_probs.push_back(std::min(-1e-3, stats[t].log_prob + row_cases::noise(seed) * 0.3));
    batch.old_entropies.push_back(std::max(0.0, stats[t].entropy + row_cases::noise(seed) * 0.1));
  }
  batch.denominators = {static_cast<double>(batch.lengths.size()), static_cast<double>(num_tokens),
                        static_cast<double>(loss_tokens)};
  return batch;
}

struct Named {
  std::string name;
  LossOptions options;
  bool thresholds = false;  // given, as for a micro-batch
};

inline std::vector<Named> option_list() {
  std::vector<Named> list;
  LossOptions paper;
  paper.knowledge().kl_coef = 0.2;
  list.push_back({"paper", paper});
  LossOptions reference = paper;
  reference.entropy_source = EntropySource::current;
  reference.entropy_tie = EntropyTie::gt;
  reference.clip_ratio_c = 10;
  reference.kl_normalizer = KlNormalizer::per_class;
  reference.loss_agg_mode = LossAggMode::seq_mean_token_mean;
  list.push_back({"reference", reference});
  const auto add = [&](const char* name, const LossOptions& from, auto change, bool thresholds = false) {
    Named named{name, from, thresholds};
    change(named.options);
    list.push_back(named);
  };
  add("no KL", paper, [](LossOptions& o) { o.knowledge().kl_coef = 0; });
  add("entropy bonus", paper, [](LossOptions& o) { o.entropy_coeff = 0.1; });
  add("reference, entropy bonus, T 0.7", reference, [](LossOptions& o) {
    o.entropy_coeff = 0.05;
    o.temperature = 0.7;
  });
  add("rollout, per-class KL", reference, [](LossOptions& o) { o.entropy_source = EntropySource::rollout; });
  add("current, batch", paper, [](LossOptions& o) {
    o.entropy_source = EntropySource::current;
    o.entropy_scope = EntropyScope::batch;
  });
  add("current, group", paper, [](LossOptions& o) {
    o.entropy_source = EntropySource::current;
    o.entropy_scope = EntropyScope::group;
  });
  add("rollout, batch", paper, [](LossOptions& o) { o.entropy_scope = EntropyScope::batch; });
  const auto current = [](LossOptions& o) { o.entropy_source = EntropySource::current; };
  add("current, thresholds", paper, current, true);
  add("current, thresholds, per-class KL", reference, [](LossOptions&) {}, true);
  for (const LossAggMode mode : {LossAggMode::seq_mean_token_mean, LossAggMode::seq_mean_token_sum,
                                 LossAggMode::seq_mean_token_sum_norm, LossAggMode::token_sum}) {
    add("aggregation", paper, [&](LossOptions& o) {
      o.loss_agg_mode = mode;
      o.loss_norm_length = 40;
      o.clip_ratio_c = 3;
    });
  }
  for (const KlType kind : {KlType::k1, KlType::k2, KlType::abs, KlType::k3_plus})
    add("KL kind", paper, [&](LossOptions& o) { o.kl_type = kind; });
  return list;
}

struct Exact {
  TokenLossResult<double> terms;
  std::vector<ExactRow> stats;
  std::vector<double> grad_hidden_TH, grad_head_VH;
};

inline Exact exact_loss(const Batch& batch, const LossOptions& options) {
  std::vector<std::vector<double>> logits;
  Exact exact;
  exact.stats = exact_stats(batch, options.temperature, &logits);
  const size_t T = batch.num_tokens();
  const auto H = static_cast<size_t>(batch.hidden_size), V = static_cast<size_t>(batch.vocabulary);
  std::vector<double> log_probs, entropies;
  for (const auto& stats : exact.stats) {
    log_probs.push_back(stats.log_prob);
    entropies.push_back(stats.entropy);
  }
  exact.terms = token_loss<double>(log_probs, entropies, batch.view(), options);
  exact.grad_hidden_TH.assign(T * H, 0);
  exact.grad_head_VH.assign(V * H, 0);
  std::vector<double> dlogits(V);
  for (size_t t = 0; t < T; ++t) {
    const double b = exact.terms.grad_entropy.empty() ? 0 : -exact.terms.grad_entropy[t];
    if (exact.terms.grad_log_prob[t] == 0 && b == 0) continue;
    exact_gradient_row(logits[t].data(), batch.vocabulary, batch.ids[t], options.temperature, exact.stats[t],
                         exact.terms.grad_log_prob[t], b, dlogits.data());
    for (size_t v = 0; v < V; ++v) {
      for (size_t h = 0; h < H; ++h) {
        exact.grad_hidden_TH[t * H + h] +=
            dlogits[v] * static_cast<double>(row_cases::widen_bf16(batch.head_VH[v * H + h]));
        exact.grad_head_VH[v * H + h] +=
            dlogits[v] * static_cast<double>(row_cases::widen_bf16(batch.hidden_TH[t * H + h]));
      }
    }
  }
  return exact;
}

template <typename A>
double relative_error(const std::vector<A>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size > 0 ? size : 1));
}

struct Outcome {
  HeadLossResult result;
  std::vector<float> grad_hidden_TH, grad_head_VH;
};

// One call with gradients that begin as NaN (hidden states) and 0 (head).
inline Outcome run(HeadDevice& device, HeadWorkspace& workspace, const Batch& batch, const LossOptions& options,
                   const HeadLossOptions& head_options, bool grad_hidden_is_float = true,
                   const JobControl* control = nullptr) {
  const auto size_hidden = batch.hidden_TH.size(), size_head = batch.head_VH.size();
  DeviceArray<uint16_t> hidden(device, batch.hidden_TH), head(device, batch.head_VH);
  DeviceArray<float> grad_head(device, std::vector<float>(size_head, 0.0f)),
      grad_hidden(device, std::vector<float>(size_hidden, std::nanf("")));
  DeviceHead d;
  d.hidden_TH = hidden.get();
  d.head_VH = head.get();
  d.num_tokens = static_cast<int64_t>(batch.num_tokens());
  d.hidden_size = batch.hidden_size;
  d.vocabulary = batch.vocabulary;
  d.grad_hidden_TH = grad_hidden.get();
  d.grad_hidden_is_float = grad_hidden_is_float;
  d.grad_head_VH = grad_head.get();
  Outcome outcome;
  outcome.result = head_loss(d, batch.view(), options, head_options, workspace, control);
  outcome.grad_head_VH = grad_head.read();
  outcome.grad_hidden_TH = grad_hidden.read();
  if (!grad_hidden_is_float) {
    std::vector<uint16_t> bits(size_hidden);
    device.download(bits.data(), grad_hidden.get(), size_hidden * 2);
    device.synchronize();
    for (size_t i = 0; i < size_hidden; ++i) outcome.grad_hidden_TH[i] = row_cases::widen_bf16(bits[i]);
  }
  return outcome;
}

struct Worst {
  double loss = 0, log_prob = 0, entropy = 0, grad_hidden = 0, grad_head = 0;
};

inline void compare(const Outcome& outcome, const Exact& exact, const Batch& batch, const std::string& name,
                    bool exact_logits, Worst& worst) {
  const int failures_before = check::failures;
  const auto& result = outcome.result;
  const double loose = exact_logits ? 1 : 1000;
  const auto& exact_sums = exact.terms.sums;
  const double loss_error = std::abs(result.loss - exact.terms.loss) / (0.01 + std::abs(exact.terms.loss));
  CHECK(loss_error <= 2e-5 * loose);
  for (size_t t = 0; t < batch.num_tokens(); ++t) {
    if (!batch.mask[t]) {
      CHECK(result.log_probs[t] == 0 && result.entropies[t] == 0 && result.classes[t] == kNotInLoss);
      continue;
    }
    const double a = std::abs(result.log_probs[t] - exact.stats[t].log_prob),
                 b = std::abs(result.entropies[t] - exact.stats[t].entropy);
    if (!(a <= 1e-5 * loose * 10 && b <= 1e-5 * loose * 10)) CHECK(a <= 1e-5 * loose && b <= 1e-5 * loose);
    worst.log_prob = std::max(worst.log_prob, a);
    worst.entropy = std::max(worst.entropy, b);
  }
  const double hidden_error = relative_error(outcome.grad_hidden_TH, exact.grad_hidden_TH),
               head_error = relative_error(outcome.grad_head_VH, exact.grad_head_VH);
  const double tolerance = exact_logits ? 4e-3 : 6e-2;  // dlogits, and one of the results, are rounded to bfloat16
  CHECK(hidden_error <= tolerance && head_error <= tolerance);
  if (exact_logits) {
    CHECK(result.classes == exact.terms.classes);
    CHECK(result.sums.total().tokens == exact_sums.total().tokens);
    CHECK(result.sums.total().clipped == exact_sums.total().clipped);
    CHECK(result.sums.total().dual_clipped == exact_sums.total().dual_clipped);
  }
  worst.loss = std::max(worst.loss, loss_error);
  worst.grad_hidden = std::max(worst.grad_hidden, hidden_error);
  worst.grad_head = std::max(worst.grad_head, head_error);
  if (check::failures > failures_before) {
    std::printf("  in %s: loss %.9g (exact %.9g), gradients off by %.2g (hidden) %.2g (head)\n", name.c_str(),
                result.loss, exact.terms.loss, hidden_error, head_error);
  }
}

// Thresholds that no token's entropy is near, per response.
inline std::vector<double> given_thresholds(const Batch& batch, const LossOptions& options) {
  std::vector<double> entropies;
  for (const auto& stats : exact_stats(batch, options.temperature)) entropies.push_back(stats.entropy);
  auto thresholds = class_thresholds<double>(entropies, batch.mask, batch.lengths, batch.group_ids, options.rho,
                                             options.entropy_scope);
  for (double& threshold : thresholds) threshold -= 1e-3;
  return thresholds;
}

// Every option set at several chunk sizes, with and without the compaction of clipped rows, both gradient types.
inline void check_all(HeadDevice& device, int64_t vocabulary, int64_t hidden_size) {
  Worst worst, worst_bf16;
  int num_cases = 0;
  for (const Named& named : option_list()) {
    Batch batch = make_batch(vocabulary, hidden_size, 77, named.options.temperature);
    if (named.thresholds) batch.thresholds = given_thresholds(batch, named.options);
    const Exact exact = exact_loss(batch, named.options);
    int64_t needed = 0;
    for (size_t t = 0; t < batch.num_tokens(); ++t)
      needed += exact.terms.grad_log_prob[t] != 0 ||
                (!exact.terms.grad_entropy.empty() && exact.terms.grad_entropy[t] != 0);
    HeadWorkspace workspace(device);
    for (const int64_t chunk : {0, 5, 16, 40}) {
      for (const bool compact : {false, true}) {
        HeadLossOptions head_options;
        head_options.chunk_tokens = chunk;
        head_options.compact_clipped = compact;
        const bool is_float = (chunk == 16) == compact;
        const Outcome outcome = run(device, workspace, batch, named.options, head_options, is_float);
        compare(outcome, exact, batch, named.name + (compact ? ", compact" : "") + ", chunk " + std::to_string(chunk),
                true, worst);
        const bool one_pass =
            named.options.entropy_source == EntropySource::rollout || named.name == "current, thresholds";
        CHECK(compact || !one_pass ? outcome.result.backward_rows == needed : outcome.result.backward_rows >= needed);
        ++num_cases;
      }
    }
    HeadLossOptions rounded;
    rounded.logits_type = LogitsType::bfloat16;
    rounded.chunk_tokens = 16;
    if (!named.thresholds && named.options.entropy_source == EntropySource::rollout)
      compare(run(device, workspace, batch, named.options, rounded), exact, batch, named.name + ", bf16 logits", false,
              worst_bf16);
  }
  std::printf("head loss V %d, %d cases: loss %.2g, |logp| %.2g, |H| %.2g, gradients %.2g (hidden) %.2g (head); bf16 "
              "logits: |logp| %.2g, gradients %.2g %.2g\n",
              static_cast<int>(vocabulary), num_cases, worst.loss, worst.log_prob, worst.entropy, worst.grad_hidden,
              worst.grad_head, worst_bf16.log_prob, worst_bf16.grad_hidden, worst_bf16.grad_head);
}

}  // namespace archer::head_cases
