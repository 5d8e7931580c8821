// Classes, weights and per-token derivatives of the loss, against the golden vectors of the specification and by hand.
// No model and no tensors: quick enough for sanitizer builds.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "check.h"
#include "expect_error.h"
#include "core/error.h"
#include "loss/token_classes.h"
#include "loss/token_loss.h"

using namespace archer;

namespace {

const double kNaN = std::numeric_limits<double>::quiet_NaN();

// A batch that owns its arrays; everything in the loss unless a mask is given.
struct Batch {
  std::vector<int32_t> lengths, group_ids;
  std::vector<uint8_t> mask;
  std::vector<double> old_log_probs, old_entropies, ref_log_probs, advantages;
  std::vector<double> thresholds;
  std::vector<double> log_probs, entropies;
  double sequences = -1, loss_tokens = -1;

  void add(const std::vector<double>& entropy, const std::vector<double>& old_log_prob,
           const std::vector<double>& log_prob, const std::vector<double>& ref_log_prob, double advantage) {
    lengths.push_back(static_cast<int32_t>(entropy.size()));
    group_ids.push_back(0);
    advantages.push_back(advantage);
    mask.insert(mask.end(), entropy.size(), 1);
    for (const double value : entropy) old_entropies.push_back(value);
    for (const double value : old_log_prob) old_log_probs.push_back(value);
    for (const double value : ref_log_prob) ref_log_probs.push_back(value);
    entropies.insert(entropies.end(), entropy.begin(), entropy.end());
    log_probs.insert(log_probs.end(), log_prob.begin(), log_prob.end());
  }
  LossBatch view() const {
    LossBatch batch;
    batch.lengths = lengths;
    batch.group_ids = group_ids;
    batch.loss_mask = mask;
    batch.old_log_probs = old_log_probs;
    batch.old_entropies = old_entropies;
    batch.ref_log_probs = ref_log_probs;
    batch.advantages = advantages;
    batch.thresholds = thresholds;
    double in_loss = 0;
    for (const uint8_t m : mask) in_loss += m != 0;
    batch.denominators = {sequences < 0 ? static_cast<double>(lengths.size()) : sequences,
                          static_cast<double>(mask.size()), loss_tokens < 0 ? in_loss : loss_tokens};
    return batch;
  }
  TokenLossResult<double> run(const LossOptions& options) const {
    return token_loss<double>(log_probs, entropies, view(), options);
  }
};

LossOptions reference_form() {
  LossOptions options;
  options.entropy_tie = EntropyTie::gt;
  options.entropy_source = EntropySource::current;
  options.clip_ratio_c = 10;
  options.kl_normalizer = KlNormalizer::per_class;
  options.loss_agg_mode = LossAggMode::seq_mean_token_mean;
  return options;
}

const std::vector<double> kEntropy1 = {.01, .02, .05, .1, .3, .5, .8, 1.2, 1.7, 2.3},
                          kOld1 = {-.01, -.02, -.1, -.2, -.5, -.7, -1, -1.5, -2, -3},
                          kNow1 = {-.3, -.02, -.05, -.6, -.2, -.7, -.5, -2.5, -1.4, -2.4},
                          kRef1 = {-.02, -.03, -.15, -.1, -.4, -.9, -1.2, -1.4, -2.2, -2.9},
                          kEntropy2 = {.2, .4, .6, .8, 1, 1.5}, kOld2 = {-3, -1, -.5, -1, -2, -1},
                          kNow2 = {-.5, -1.4, -.2, -1, -1.7, -2}, kRef2 = {-1, -1, -.5, -.9, -2, -1.5};

void check_vector(const char* name, const std::vector<double>& values, const std::vector<double>& expected) {
  CHECK(values.size() == expected.size());
  double worst = 0;
  for (size_t t = 0; t < expected.size(); ++t) {
    CHECK_NEAR(values[t], expected[t], 1e-6);
    worst = std::max(worst, std::abs(values[t] - expected[t]));
  }
  std::printf("%s: largest difference %.2g\n", name, worst);
}

void golden_vector_1() {
  Batch batch;
  batch.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  auto result = batch.run(reference_form());
  CHECK_NEAR(result.thresholds[0], 1.3, 1e-6);
  for (int t = 0; t < 10; ++t) CHECK(result.classes[t] == (t < 8 ? kKnowledge : kReasoning));
  CHECK_NEAR(result.sums.total().pg_loss / 10, -1.0237734, 1e-6);
  CHECK_NEAR(result.sums.classes[kKnowledge].kl / 8, .1668689, 1e-6);
  CHECK_NEAR(result.sums.classes[kReasoning].kl / 2, .1779298, 1e-6);
  CHECK_NEAR(result.loss, -1.0236065, 1e-6);
  CHECK(result.sums.total().tokens == 10);
  check_vector("vector 1, A = +1", result.grad_log_prob,
               {-.074867, -.099999, -.105115, -.067113, .000023, -.099977, .000063, -.037038, 0, 0});
  LossOptions paper = reference_form();
  paper.kl_normalizer = KlNormalizer::shared;
  paper.loss_agg_mode = LossAggMode::token_mean;
  CHECK_NEAR(batch.run(paper).loss, -1.0236399, 1e-6);

  batch.advantages[0] = -1;
  result = batch.run(reference_form());
  CHECK_NEAR(result.sums.total().pg_loss / 10, 1.2094089, 1e-6);
  CHECK_NEAR(result.loss, 1.2095758, 1e-6);
  CHECK_NEAR(batch.run(paper).loss, 1.2095424, 1e-6);
  check_vector("vector 1, A = -1", result.grad_log_prob,
               {-.00004, .100001, .105139, -.000081, .135009, .100023, .164935, -.000251, .182212, .182212});
}

void golden_vector_2() {
  Batch batch;
  batch.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  batch.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  auto result = batch.run(reference_form());
  CHECK_NEAR(result.thresholds[1], 1.0, 1e-9);
  CHECK(std::count(result.classes.begin() + 10, result.classes.end(), kKnowledge) == 5);
  CHECK_NEAR(result.loss, .7382017, 1e-6);
  CHECK(result.sums.total().dual_clipped == 1);
  check_vector("vector 2, reference", result.grad_log_prob,
               {-.037433, -.049999, -.052558, -.033557, .000011, -.049989, .000031, -.018519, 0, 0,
                .000039, -.000049, .112514, .083323, .112514, 0});

  const LossOptions paper;
  result = batch.run(paper);
  CHECK(std::count(result.classes.begin() + 10, result.classes.end(), kKnowledge) == 4);
  CHECK_NEAR(result.loss, .4341285, 1e-6);
  const std::vector<double> gradient = {-.046787, -.062499, -.065698, -.041936, .000011, -.062489, .000031, -.023118,
                                        0,        0,        .761430,  -.000031, .084382, .062493,  .084366, 0};
  check_vector("vector 2, paper", result.grad_log_prob, gradient);
  LossOptions sides = paper;
  sides.knowledge().clip_low = .1;
  sides.knowledge().clip_high = .3;
  sides.reasoning().clip_low = .4;
  sides.reasoning().clip_high = .6;
  result = batch.run(sides);
  CHECK_NEAR(result.loss, .4216285, 1e-6);
  check_vector("vector 2, own clip sides", result.grad_log_prob, gradient);
}

double quantile(std::vector<float> values, double rho = 0.8) { return entropy_quantile(values, rho); }

int reasoning_tokens(const std::vector<float>& entropies, EntropyTie tie) {
  LossOptions options;
  options.entropy_tie = tie;
  const std::vector<uint8_t> mask(entropies.size(), 1);
  const std::vector<int32_t> lengths = {static_cast<int32_t>(entropies.size())}, groups = {0};
  const auto result = token_classes<float>(entropies, mask, lengths, groups, options);
  return static_cast<int>(std::count(result.classes.begin(), result.classes.end(), kReasoning));
}

void class_rules() {
  CHECK(reasoning_tokens({.2f, .4f, .6f, .8f, 1.f, 1.5f}, EntropyTie::gt) == 1);
  CHECK(reasoning_tokens({.2f, .4f, .6f, .8f, 1.f, 1.5f}, EntropyTie::ge) == 2);
  CHECK(reasoning_tokens({.7f, .7f, .7f, .7f}, EntropyTie::gt) == 0);
  CHECK(reasoning_tokens({.7f, .7f, .7f, .7f}, EntropyTie::ge) == 4);
  CHECK(reasoning_tokens({.7f}, EntropyTie::gt) == 0 && reasoning_tokens({.7f}, EntropyTie::ge) == 1);
  CHECK(quantile({3, 1, 2}, 0) == 1 && quantile({3, 1, 2}, 1) == 3 && quantile({3, 1, 2}, .5) == 2);
  CHECK(quantile({1, 0}) == 0.8);
  // 0.8 * 6 would interpolate; .7 * 10 = 7.000000000000001 and .57 * 100 = 56.99999999999999 must snap to a value
  // itself.
  std::vector<float> steps;
  for (int k = 0; k <= 100; ++k) steps.push_back(0.1f * static_cast<float>(k));
  CHECK(quantile(steps, .57) == static_cast<double>(steps[57]));
  CHECK(quantile({steps.begin(), steps.begin() + 11}, .7) == static_cast<double>(steps[7]));
  CHECK_NEAR(quantile({0, 1, 2, 3, 4, 5, 6}), 4.8, 1e-12);
  // float64 entropies that differ below float32 are ties.
  const std::vector<double> close = {1.0, 1.0 + 1e-12, 1.0 + 2e-12};
  const std::vector<uint8_t> mask3 = {1, 1, 1};
  const std::vector<int32_t> one = {3};
  LossOptions gt;
  gt.entropy_tie = EntropyTie::gt;
  const auto tied = token_classes<double>(close, mask3, one, {}, gt);
  CHECK(std::count(tied.classes.begin(), tied.classes.end(), kReasoning) == 0);

  // Scopes, a masked NaN, an empty response and one that is masked throughout.
  const std::vector<float> entropies = {1, 2, static_cast<float>(kNaN), 10, 20, 30, 5, 7};
  const std::vector<uint8_t> mask = {1, 1, 0, 1, 1, 1, 0, 1};
  const std::vector<int32_t> lengths = {3, 0, 2, 1, 1, 1}, groups = {4, 4, 9, 4, 9, 9};
  const auto per_response = class_thresholds<float>(entropies, mask, lengths, groups, .5, EntropyScope::response);
  CHECK(per_response[0] == 1.5 && std::isnan(per_response[1]) && per_response[2] == 15 && per_response[3] == 30);
  CHECK(std::isnan(per_response[4]) && per_response[5] == 7);
  const auto per_group = class_thresholds<float>(entropies, mask, lengths, groups, .5, EntropyScope::group);
  CHECK(per_group[0] == 2 && std::isnan(per_group[1]) && per_group[2] == 10 && per_group[3] == 2 && per_group[5] == 10);
  const auto per_batch = class_thresholds<float>(entropies, mask, lengths, groups, .5, EntropyScope::batch);
  CHECK(per_batch[0] == 8.5 && per_batch[2] == 8.5 && per_batch[5] == 8.5 && std::isnan(per_batch[4]));
  const auto classes = classify_tokens<float>(entropies, mask, lengths, per_batch, EntropyTie::gt);
  CHECK((classes == std::vector<uint8_t>{0, 0, kNotInLoss, 1, 1, 1, kNotInLoss, 0}));
}

// d(loss)/d(logp) of policy_term and kl_term at and around their edges.
void kinks() {
  const ClipEdges<double> edges{0.8, 1.2, 3.0}, open{0.8, 1.2, 0.0};
  const auto grad = [&](double ratio, double advantage, const ClipEdges<double>& e) {
    return policy_term<double>(std::log(ratio), 0, advantage, e).grad;
  };
  CHECK_NEAR(grad(1.19, 2, edges), -2.38, 1e-12);
  CHECK(grad(1.21, 2, edges) == 0);
  CHECK_NEAR(grad(0.1, 2, edges), -.2, 1e-12);
  CHECK(grad(0.79, -2, edges) == 0);
  CHECK_NEAR(grad(0.81, -2, edges), 1.62, 1e-12);
  CHECK_NEAR(grad(2.99, -2, edges), 5.98, 1e-12);
  CHECK(grad(3.01, -2, edges) == 0);
  CHECK_NEAR(grad(3.01, -2, open), 6.02, 1e-12);
  CHECK(grad(1.0, 0, edges) == 0);
  const auto at_one = policy_term<double>(0, 0, 1, {1.0, 1.0, 0.0});  // the edge itself belongs to the active side
  CHECK(at_one.grad == -1 && !at_one.clipped);
  CHECK(policy_term<double>(0, 0, -1, {1.0, 1.0, 1.0}).grad == 1);
  const auto far = policy_term<double>(21, 0, -1, open), low = policy_term<double>(-21, 0, 1, open);
  CHECK(far.grad == 0 && low.grad == 0);
  CHECK_NEAR(far.loss / std::exp(20.0), 1, 1e-12);
  CHECK_NEAR(policy_term<double>(19.9, 0, -1, open).grad / std::exp(19.9), 1, 1e-12);
  CHECK(policy_term<double>(std::log(5), 0, -1, edges).dual_clipped &&
        !policy_term<double>(std::log(5), 0, -1, edges).clipped);

  const auto k3 = [](double d, KlType type = KlType::k3) { return kl_term<double>(0, d, type); };
  CHECK_NEAR(k3(0.5).value, std::exp(.5) - 1.5, 1e-12);
  CHECK_NEAR(k3(0.5).grad, 1 - std::exp(.5), 1e-12);
  CHECK_NEAR(k3(2.610).grad, 1 - std::exp(2.610), 1e-12);
  CHECK(k3(2.612).grad == 0 && k3(2.612).value == 10);
  CHECK_NEAR(k3(-10.9999).grad, 1 - std::exp(-10.9999), 1e-12);
  CHECK(k3(-11.0001).grad == 0 && k3(-11.0001).value == 10 && k3(-25).grad == 0 && k3(25).grad == 0);
  CHECK(k3(25, KlType::k3_plus).value == 10 && k3(25, KlType::k3_plus).grad == -25);
  CHECK(k3(3, KlType::k1).value == -3 && k3(3, KlType::k1).grad == 1);
  CHECK(k3(3, KlType::k2).value == 4.5 && k3(3, KlType::k2).grad == -3);
  CHECK(k3(3, KlType::abs).value == 3 && k3(3, KlType::abs).grad == -1 && k3(0, KlType::abs).grad == 0);
  // Where the edges lie, by central differences of the value.
  for (const KlType type : {KlType::k1, KlType::k2, KlType::k3, KlType::abs}) {
    for (double d = -24.55; d < 25; d += 0.3) {
      const double step = 1e-6;
      const double slope = (kl_term<double>(step, d, type).value - kl_term<double>(-step, d, type).value) / (2 * step);
      CHECK_NEAR(k3(d, type).grad, slope, 1e-6 * (1 + std::abs(slope)));
    }
  }
}

void masks_and_empties() {
  const LossOptions reference = reference_form();
  Batch full;
  full.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  full.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  const auto plain = full.run(reference);

  // The same with garbage in masked tokens, an empty and a wholly masked response: only B changes (2 -> 4).
  Batch holey;
  const auto with_garbage = [](std::vector<double> values) {
    values.insert(values.begin() + 3, kNaN);
    values.push_back(1e30);
    return values;
  };
  holey.add(with_garbage(kEntropy1), with_garbage(kOld1), with_garbage(kNow1), with_garbage(kRef1), 1);
  holey.mask[3] = holey.mask[11] = 0;
  holey.add({}, {}, {}, {}, kNaN);
  holey.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  holey.add({kNaN}, {kNaN}, {kNaN}, {kNaN}, kNaN);
  holey.mask.back() = 0;
  const auto masked = holey.run(reference);
  CHECK_NEAR(masked.loss, plain.loss / 2, 1e-12);
  CHECK_NEAR(masked.grad_log_prob[4], plain.grad_log_prob[3] / 2, 1e-15);
  CHECK(masked.grad_log_prob[3] == 0 && masked.grad_log_prob[11] == 0 && masked.classes[3] == kNotInLoss);
  CHECK(masked.sums.responses == 4 && masked.sums.responses_without_loss_tokens == 2 && masked.sums.thresholds == 2);
  CHECK_NEAR(masked.sums.total().entropy, plain.sums.total().entropy, 1e-12);
  CHECK(std::isnan(masked.thresholds[1]) && std::isnan(masked.thresholds[3]));

  // No reasoning tokens at all: 0, not 0/0; and no tokens at all.
  Batch single;
  single.add({.5}, {-1}, {-1.1}, {-1.2}, 1);
  LossOptions both = reference;
  both.reasoning().kl_coef = 0.01;
  CHECK(std::isfinite(single.run(both).loss) && single.run(both).sums.classes[kReasoning].tokens == 0);
  Batch nothing;
  CHECK(nothing.run(reference).loss == 0);
  Batch empty_response;
  empty_response.add({}, {}, {}, {}, 1);
  CHECK(empty_response.run(LossOptions{}).loss == 0);
}

// Micro-batches of one response: losses, gradients and sums add up, with thresholds of the whole for scope batch.
void micro_batches() {
  Batch whole;
  whole.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  whole.add({}, {}, {}, {}, 0.3);
  whole.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  for (const auto mode : {LossAggMode::token_mean, LossAggMode::seq_mean_token_mean, LossAggMode::seq_mean_token_sum,
                          LossAggMode::seq_mean_token_sum_norm, LossAggMode::token_sum}) {
    for (const auto scope : {EntropyScope::response, EntropyScope::group, EntropyScope::batch}) {
      LossOptions options = reference_form();
      options.loss_agg_mode = mode;
      options.loss_norm_length = 32;
      options.entropy_scope = scope;
      options.entropy_coeff = 0.01;
      options.kl_normalizer = mode == LossAggMode::seq_mean_token_mean ? KlNormalizer::per_class : KlNormalizer::shared;
      const auto expected = whole.run(options);
      const auto thresholds =
          class_thresholds<double>(whole.entropies, whole.mask, whole.lengths, whole.group_ids, options.rho, scope);
      LossSums sums;
      double loss = 0;
      size_t token = 0;
      for (size_t i = 0; i < 3; ++i) {
        Batch part;
        const size_t end = token + static_cast<size_t>(whole.lengths[i]);
        const auto cut = [&](const auto& v) { return std::vector<double>(v.begin() + token, v.begin() + end); };
        part.add(cut(whole.entropies), cut(whole.old_log_probs), cut(whole.log_probs), cut(whole.ref_log_probs),
                 whole.advantages[i]);
        part.sequences = 3;
        part.loss_tokens = 16;
        part.thresholds = {thresholds[i]};
        const auto result = part.run(options);
        for (size_t t = token; t < end; ++t) {
          CHECK_NEAR(result.grad_log_prob[t - token], expected.grad_log_prob[t], 1e-15);
          CHECK(result.classes[t - token] == expected.classes[t]);
        }
        loss += result.loss;
        sums += result.sums;
        token = end;
      }
      CHECK_NEAR(loss, expected.loss, 1e-12);
      CHECK_NEAR(sums.total().kl, expected.sums.total().kl, 1e-12);
      CHECK_NEAR(sums.entropy_loss, expected.sums.entropy_loss, 1e-12);
      CHECK(sums.total().clipped == expected.sums.total().clipped && sums.responses == 3);
      CHECK(sums.threshold_min == expected.sums.threshold_min && sums.threshold_max == expected.sums.threshold_max);
    }
  }
}

void errors() {
  Batch good;
  good.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  good.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  const auto with = [&](auto change, const LossOptions& options = reference_form()) {
    Batch bad = good;
    change(bad);
    bad.run(options);
  };
  expect_error(kShape, "old_log_probs holds 15", [&] { with([](Batch& b) { b.old_log_probs.pop_back(); }); });
  expect_error(kShape, "ref_log_probs holds 0", [&] { with([](Batch& b) { b.ref_log_probs.clear(); }); });
  expect_error(kShape, "advantages holds 1", [&] { with([](Batch& b) { b.advantages.pop_back(); }); });
  expect_error(kShape, "lengths", [&] { with([](Batch& b) { b.lengths[0] = 9; }); });
  expect_error(kShape, "lengths[1] is -1", [&] { with([](Batch& b) { b.lengths[1] = -1; }); });
  expect_error(kShape, "thresholds holds 1", [&] { with([](Batch& b) { b.thresholds = {1}; }); });
  expect_error(kShape, "denominators.sequences", [&] { with([](Batch& b) { b.sequences = 1; }); });
  expect_error(kShape, "denominators.loss_tokens", [&] { with([](Batch& b) { b.loss_tokens = 15; }); });
  expect_error(kShape, "old_entropies", [&] { with([](Batch& b) { b.old_entropies.clear(); }, LossOptions{}); });
  LossOptions batch_scope = reference_form();
  batch_scope.entropy_scope = EntropyScope::batch;
  expect_error(kShape, "need thresholds", [&] { with([](Batch& b) { b.loss_tokens = 20; }, batch_scope); });
  expect_error(kNumeric, "old_log_probs[12] (response 1)", [&] { with([](Batch& b) { b.old_log_probs[12] = NAN; }); });
  expect_error(kNumeric, "ref_log_probs[3] (response 0)",
               [&] { with([](Batch& b) { b.ref_log_probs[3] = -INFINITY; }); });
  expect_error(kNumeric, "log_probs[2] (response 0)", [&] { with([](Batch& b) { b.log_probs[2] = kNaN; }); });
  expect_error(kNumeric, "entropies[15] (response 1)", [&] { with([](Batch& b) { b.entropies[15] = kNaN; }); });
  expect_error(kNumeric, "advantages[1]", [&] { with([](Batch& b) { b.advantages[1] = NAN; }); });
  expect_error(kNumeric, "thresholds[0]", [&] { with([](Batch& b) { b.thresholds = {kNaN, 1}; }); });

  const auto config = [](const char* fragment, auto change) {
    LossOptions options = reference_form();
    change(options);
    expect_error(kConfig, fragment, [&] { options.validate(); });
  };
  config("token_entropy_quantile is 1.5", [](LossOptions& o) { o.rho = 1.5; });
  config("clip_ratio_c is 0.5", [](LossOptions& o) { o.clip_ratio_c = .5; });
  config("lower clip radius of reasoning", [](LossOptions& o) { o.reasoning().clip_low = 2; });
  config("per-class needs", [](LossOptions& o) { o.loss_agg_mode = LossAggMode::token_mean; });
  config("loss_norm_length", [](LossOptions& o) {
    o.kl_normalizer = KlNormalizer::shared;
    o.loss_agg_mode = LossAggMode::seq_mean_token_sum_norm;
  });
  config("temperature is 0", [](LossOptions& o) { o.temperature = 0; });
  config("KL coefficient of knowledge", [](LossOptions& o) { o.knowledge().kl_coef = -1; });
  config("entropy_coeff", [](LossOptions& o) { o.entropy_coeff = kNaN; });
  config("chunk_tokens", [](LossOptions& o) { o.chunk_tokens = -1; });
  CHECK(kl_type_from_name("low_var_kl") == KlType::k3 && kl_type_from_name("k3+") == KlType::k3_plus);
  CHECK(loss_agg_mode_from_name("seq-mean-token-sum-norm") == LossAggMode::seq_mean_token_sum_norm);
  CHECK(loss_agg_mode_from_name("token_mean") == LossAggMode::token_mean);
  CHECK(kl_normalizer_from_name("per-class") == KlNormalizer::per_class);
  expect_error(kConfig, "entropy_tie is \"eq\"; it must be one of gt, ge", [] { entropy_tie_from_name("eq"); });
}

// float32 arithmetic stays close to float64's.
void float_arithmetic() {
  Batch batch;
  batch.add(kEntropy1, kOld1, kNow1, kRef1, 1);
  batch.add(kEntropy2, kOld2, kNow2, kRef2, -1);
  const std::vector<float> log_probs(batch.log_probs.begin(), batch.log_probs.end()),
      entropies(batch.entropies.begin(), batch.entropies.end());
  const auto wide = batch.run(reference_form());
  const auto narrow = token_loss<float>(log_probs, entropies, batch.view(), reference_form());
  CHECK_NEAR(narrow.loss, wide.loss, 2e-7 * std::abs(wide.loss) + 2e-7);
  for (size_t t = 0; t < wide.grad_log_prob.size(); ++t)
    CHECK_NEAR(narrow.grad_log_prob[t], wide.grad_log_prob[t], 1e-7);
  CHECK(narrow.classes == wide.classes);
}

}  // namespace

int main() {
  golden_vector_1();
  golden_vector_2();
  class_rules();
  kinks();
  masks_and_empties();
  micro_batches();
  errors();
  float_arithmetic();
  return check::finish();
}
