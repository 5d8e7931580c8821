// fused_loss against ATen's autograd on full logits (naive_loss), central differences, and itself in other splits and
// chunks; score_tokens against both. Awkward rows throughout: A = 0, both clip edges, the dual clip, log-ratios beyond
// 20, one-token, empty and masked responses, ties, vocabularies that no vector width divides. Prints the errors it
// measured. Relative error = ||a - b|| / ||b|| per tensor.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>


#include "check.h"
#include "expect_error.h"
#include "core/error.h"
#include "kernels/cpu_isa.h"
#include "loss/fused_loss.h"
#include "core/head_gemm.h"
#include "loss/naive_loss.h"
#include "loss/token_classes.h"

using namespace archer;

namespace {

constexpr double kNoGradientNeeded = 1e-300;

// Every instruction set that this processor has, in turn; the widest again at the end.
template <typename Body>
void for_each_isa(Body body) {
  for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) == isa) body(cpu_isa_name(isa));
    else std::printf("%s: not on this processor\n", cpu_isa_name(isa));
  }
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  const double norm = b.to(at::kDouble).norm().item<double>();
  return (a.to(at::kDouble) - b.to(at::kDouble)).norm().item<double>() / std::max(norm, kNoGradientNeeded);
}

at::Tensor tensor_of(const std::vector<double>& values) {
  return at::tensor(at::ArrayRef<double>(values), at::kDouble);
}

struct Case {
  at::Tensor hidden, head;  // float64
  std::vector<int32_t> ids, lengths, group_ids;
  std::vector<uint8_t> mask;
  std::vector<double> old_log_probs, old_entropies, ref_log_probs, advantages;
  std::vector<double> thresholds;
  Denominators denominators;

  LossBatch view() const {
    return {ids,           lengths,       group_ids,  mask,       old_log_probs,
            old_entropies, ref_log_probs, advantages, thresholds, denominators};
  }
};

// Responses of 23, 1, 0, 40, 7, 12 (wholly masked) and 9 tokens in two groups. Old and reference log-probs stand around
// the current ones so that every branch of the loss is taken, and no ratio lies within 2 % of an edge.
// rounded_to: the inputs hold values of that type.
Case make_case(int64_t vocabulary, uint64_t seed, double temperature = 1.0, at::ScalarType rounded_to = at::kDouble) {
  Case c;
  c.lengths = {23, 1, 0, 40, 7, 12, 9};
  c.group_ids = {5, 5, 5, 2, 2, 2, 5};
  c.advantages = {1.2f, -.7f, .5f, -1.1f, 0.f, .9f, -.3f};
  const int64_t num_tokens = 92, hidden_size = 24;
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int32_t> any_id(0, static_cast<int32_t>(vocabulary) - 1);
  std::vector<double> hidden(num_tokens * hidden_size), head(vocabulary * hidden_size);
  for (double& x : hidden) x = normal(random);
  for (double& x : head) x = 0.5 * normal(random);
  c.hidden = tensor_of(hidden).view({num_tokens, hidden_size}).contiguous();
  c.head = tensor_of(head).view({vocabulary, hidden_size}).contiguous();
  c.hidden.select(0, 30).copy_(c.hidden.select(0, 29));  // equal entropies within response 3
  c.hidden.select(0, 31).copy_(c.hidden.select(0, 29));
  for (int64_t t = 0; t < num_tokens; ++t) c.ids.push_back(any_id(random));
  c.ids[30] = c.ids[31] = c.ids[29];
  c.hidden = c.hidden.to(rounded_to).to(at::kDouble);
  c.head = c.head.to(rounded_to).to(at::kDouble);
  c.mask.assign(num_tokens, 1);
  for (const int t : {0, 11, 22, 40, 63, 70}) c.mask[t] = 0;
  for (int t = 71; t < 83; ++t) c.mask[t] = 0;

  const TokenScores now = score_tokens(c.hidden, c.head, c.ids, temperature);
  const double log_ratios[] = {0.0, 0.1, -0.1, 0.3, -0.3, 0.45, -0.8, 1.0, 2.0, 2.6, -3.0, 21.0, -21.5, 19.0};
  const double ref_shifts[] = {0.05, 0.2, -0.3, 1.5, 2.55, 2.7, -5.0, -10.9, -11.2, 19.0, 21.0, -21.0, 0.01};
  for (int64_t t = 0; t < num_tokens; ++t) {
    // The big ratios would drown every other gradient of A < 0 without dual clip, so they stand where A > 0 or masked.
    double log_ratio = log_ratios[t % 14];
    if (log_ratio > 3 && t >= 23) log_ratio = t % 28 < 14 ? 1.5 : 20.5;
    if (t > 23 && log_ratio > 20) log_ratio = t == 51 ? 20.5 : .15;
    c.old_log_probs.push_back(now.log_probs[t] - log_ratio);
    c.ref_log_probs.push_back(now.log_probs[t] + ref_shifts[t % 13]);
    c.old_entropies.push_back(std::abs(now.entropies[t] + 0.2 * normal(random)));
  }
  c.old_entropies[34] = c.old_entropies[35] = c.old_entropies[36];
  double in_loss = 0;
  for (const uint8_t m : c.mask) in_loss += m;
  c.denominators = {7, static_cast<double>(num_tokens), in_loss};
  return c;
}

struct Outcome {
  FusedLossResult result;
  at::Tensor grad_hidden, grad_head;
};

Outcome run(const Case& c, const LossOptions& options, at::ScalarType dtype = at::kDouble) {
  Outcome outcome;
  const at::Tensor hidden = c.hidden.to(dtype), head = c.head.to(dtype);
  outcome.grad_head =
      at::zeros(head.sizes(), at::TensorOptions().dtype(dtype == at::kDouble ? at::kDouble : at::kFloat));
  outcome.result = fused_loss(hidden, head, c.view(), options, outcome.grad_hidden, outcome.grad_head);
  return outcome;
}

struct Named {
  std::string name;
  LossOptions options;
};

std::vector<Named> option_list() {
  std::vector<Named> list;
  LossOptions base;  // no ratio beyond e^20 may enter an unclipped negative advantage: dual clip on, except where named
  base.clip_ratio_c = 10;
  base.knowledge().kl_coef = 0.05;
  base.reasoning().kl_coef = 0.02;
  base.loss_norm_length = 50;
  const auto add = [&](std::string name, auto change) {
    LossOptions options = base;
    change(options);
    list.push_back({std::move(name), options});
  };
  add("paper", [](LossOptions& o) { o = LossOptions{}; });
  add("reference", [](LossOptions& o) {
    o.entropy_tie = EntropyTie::gt;
    o.entropy_source = EntropySource::current;
    o.kl_normalizer = KlNormalizer::per_class;
    o.loss_agg_mode = LossAggMode::seq_mean_token_mean;
  });
  const std::pair<const char*, KlType> kls[] = {{"k1", KlType::k1}, {"k2", KlType::k2}, {"k3", KlType::k3},
                                                {"abs", KlType::abs}, {"k3+", KlType::k3_plus}};
  for (const auto& [name, type] : kls) add(name, [&](LossOptions& o) { o.kl_type = type; });
  add("no kl", [](LossOptions& o) { o.knowledge().kl_coef = o.reasoning().kl_coef = 0; });
  const std::pair<const char*, LossAggMode> modes[] = {
      {"token-mean", LossAggMode::token_mean},
      {"seq-mean-token-mean", LossAggMode::seq_mean_token_mean},
      {"seq-mean-token-sum", LossAggMode::seq_mean_token_sum},
      {"seq-mean-token-sum-norm", LossAggMode::seq_mean_token_sum_norm},
      {"token-sum", LossAggMode::token_sum}};
  for (const auto& [name, mode] : modes) add(name, [&](LossOptions& o) { o.loss_agg_mode = mode; });
  for (const auto source : {EntropySource::current, EntropySource::rollout}) {
    for (const auto scope : {EntropyScope::response, EntropyScope::group, EntropyScope::batch}) {
      for (const auto tie : {EntropyTie::gt, EntropyTie::ge}) {
        add("source " + std::to_string(static_cast<int>(source)) + " scope " + std::to_string(static_cast<int>(scope)) +
                " tie " + std::to_string(static_cast<int>(tie)),
            [&](LossOptions& o) {
              o.entropy_source = source;
              o.entropy_scope = scope;
              o.entropy_tie = tie;
            });
      }
    }
  }
  add("c = 3", [](LossOptions& o) { o.clip_ratio_c = 3; });
  add("no dual clip", [](LossOptions& o) { o.clip_ratio_c = 0; });
  add("entropy bonus", [](LossOptions& o) { o.entropy_coeff = 0.03; });
  add("entropy bonus alone per sequence", [](LossOptions& o) {
    o.entropy_coeff = -0.1;
    o.knowledge().kl_coef = o.reasoning().kl_coef = 0;
    o.loss_agg_mode = LossAggMode::seq_mean_token_mean;
  });
  add("per-class kl, entropy bonus, rollout", [](LossOptions& o) {
    o.entropy_coeff = 0.03;
    o.kl_normalizer = KlNormalizer::per_class;
    o.loss_agg_mode = LossAggMode::seq_mean_token_mean;
  });
  for (const double temperature : {0.6, 1.7}) {
    add("temperature " + std::to_string(temperature), [&](LossOptions& o) {
      o.temperature = temperature;
      o.entropy_coeff = 0.03;
    });
  }
  add("asymmetric clips, rho .5", [](LossOptions& o) {
    o.rho = .5;
    o.knowledge() = {.05, .25, .01};
    o.reasoning() = {.35, .9, .0};
  });
  return list;
}

void check_close(const std::string& name, const Outcome& fused, const NaiveLossResult& naive, double tolerance,
                 double* worst) {
  const double errors[] = {
      std::abs(fused.result.loss - naive.loss.item<double>()) / std::max(1e-12, std::abs(naive.loss.item<double>())),
      relative_error(fused.grad_hidden, naive.grad_hidden_TH), relative_error(fused.grad_head, naive.grad_head_VH)};
  for (const double error : errors) {
    if (!(error <= tolerance)) std::printf("%s: %g %g %g\n", name.c_str(), errors[0], errors[1], errors[2]);
    CHECK(error <= tolerance);
    *worst = std::max(*worst, error);
  }
}

// Every option, in chunks that hold everything, that cut responses, and one of odd size.
void against_autograd() {
  double worst_double = 0;
  for (const int64_t vocabulary : {131, 1000}) {
    for (const Named& named : option_list()) {
      const Case c = make_case(vocabulary, 7, named.options.temperature);
      const NaiveLossResult naive = naive_loss(c.hidden, c.head, c.view(), named.options);
      for (const int64_t chunk : {0, 13, 1}) {
        if (chunk == 1 && vocabulary != 131) continue;
        LossOptions options = named.options;
        options.chunk_tokens = chunk;
        const Outcome fused = run(c, options);
        check_close(named.name + " chunk " + std::to_string(chunk), fused, naive, 1e-10, &worst_double);
        const auto classes = naive.classes;
        for (int64_t t = 0; t < 92; ++t) CHECK(fused.result.classes[t] == classes[t].item<int64_t>());
      }
    }
  }
  std::printf("fused against autograd in float64: worst relative error %.2g\n", worst_double);
}

// Classes fixed by thresholds midway between entropies, so that rounding cannot flip one.
Case with_fixed_classes(const Case& c, const LossOptions& options) {
  const auto basis = options.entropy_source == EntropySource::rollout
                         ? std::vector<double>(c.old_entropies.begin(), c.old_entropies.end())
                         : score_tokens(c.hidden, c.head, c.ids, options.temperature).entropies;
  std::vector<double> sorted = basis;
  std::sort(sorted.begin(), sorted.end());
  size_t gap = 60;
  while (sorted[gap + 1] - sorted[gap] < 1e-3) ++gap;
  Case fixed = c;
  fixed.thresholds.assign(c.lengths.size(), (sorted[gap] + sorted[gap + 1]) / 2);
  return fixed;
}

// Every option in float32 and bfloat16, with every instruction set, against float64 arithmetic on the same inputs.
// Vocabularies: less than a tile, odd, tiles and a rest. bfloat16: logp and H as for float32, gradients to its rounding.
void every_instruction_set() {
  for_each_isa([](const char* isa) {
    double worst[2] = {0, 0}, worst_log_prob = 0, worst_entropy = 0;
    for (const int64_t vocabulary : {19, 131, 1000}) {
      for (const Named& named : option_list()) {
        for (const auto dtype : {at::kFloat, at::kBFloat16}) {
          Case c = make_case(vocabulary, 7, named.options.temperature);
          const bool bf16 = dtype == at::kBFloat16;
          if (bf16) {  // old and reference log-probs stand around those of the rounded inputs
            c = make_case(vocabulary, 7, named.options.temperature, at::kBFloat16);
          }
          c = with_fixed_classes(c, named.options);
          LossOptions options = named.options;
          options.chunk_tokens = vocabulary == 131 ? 29 : 0;
          const Case rounded = [&] {
            Case copy = c;
            copy.hidden = c.hidden.to(dtype).to(at::kDouble);
            copy.head = c.head.to(dtype).to(at::kDouble);
            return copy;
          }();
          const NaiveLossResult naive = naive_loss(rounded.hidden, rounded.head, c.view(), options);
          const Outcome fused = run(c, options, dtype);
          check_close(named.name + " " + isa + (bf16 ? " bf16" : " float32"), fused, naive, bf16 ? 1e-2 : 1e-5,
                      &worst[bf16]);
          if (!bf16) continue;
          const at::Tensor in_loss = tensor_of({c.mask.begin(), c.mask.end()});
          const auto largest = [&](const std::vector<double>& values, const at::Tensor& expected) {
            return ((tensor_of(values) - expected).abs() * in_loss).max().item<double>();
          };
          worst_log_prob = std::max(worst_log_prob, largest(fused.result.log_probs, naive.log_probs));
          worst_entropy = std::max(worst_entropy, largest(fused.result.entropies, naive.entropies));
        }
      }
    }
    std::printf("%s against float64: worst relative error %.2g (float32), %.2g (bf16); bf16 logp %.2g, H %.2g\n", isa,
                worst[0], worst[1], worst_log_prob, worst_entropy);
    CHECK(worst_log_prob <= 2e-4 && worst_entropy <= 2e-4);
  });
}

void log_probs_and_entropies() {
  const Case c = make_case(1000, 3);
  const auto naive = naive_loss(c.hidden, c.head, c.view(), LossOptions{});
  const at::Tensor in_loss = tensor_of({c.mask.begin(), c.mask.end()});
  const Outcome wide = run(c, LossOptions{}), narrow = run(c, LossOptions{}, at::kFloat);
  const auto largest = [&](const std::vector<double>& values, const at::Tensor& expected) {
    return ((tensor_of(values) - expected).abs() * in_loss).max().item<double>();
  };
  const double errors[] = {
      largest(wide.result.log_probs, naive.log_probs), largest(wide.result.entropies, naive.entropies),
      largest(narrow.result.log_probs, naive.log_probs), largest(narrow.result.entropies, naive.entropies)};
  std::printf("logp, H: float64 %.2g %.2g, float32 %.2g %.2g absolute\n", errors[0], errors[1], errors[2], errors[3]);
  CHECK(errors[0] <= 1e-12 && errors[1] <= 1e-12);
  CHECK(errors[2] <= 2e-5 && errors[3] <= 5e-6);  // the float32 GEMM's own rounding at |z| ~ 10 is most of it
  for (int64_t t = 0; t < 92; ++t) CHECK(c.mask[t] || wide.result.log_probs[t] == 0);

  // score_tokens: the same bits as pass 1 for the same rows, alone and in chunks.
  Case unmasked = c;
  unmasked.mask.assign(92, 1);
  unmasked.denominators.loss_tokens = 92;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kDouble}) {
    for (const int64_t chunk : {0, 10}) {
      LossOptions options;  // classes from the rollout: chunks are cut evenly, as in score_tokens
      options.chunk_tokens = chunk;
      options.temperature = 1.3;
      const auto scores = score_tokens(c.hidden.to(dtype), c.head.to(dtype), c.ids, 1.3, nullptr, chunk);
      const auto fused = run(unmasked, options, dtype);
      CHECK(scores.log_probs == fused.result.log_probs && scores.entropies == fused.result.entropies);
    }
  }
}

// The gradient is that of the loss: central differences in random directions, classes fixed.
void central_differences() {
  double worst = 0;
  for (const Named& named : option_list()) {
    if (named.options.kl_type == KlType::k3_plus) continue;  // by design not the derivative of its value
    Case c = make_case(131, 11, named.options.temperature);
    LossOptions options = named.options;
    options.entropy_source = EntropySource::rollout;
    for (int direction = 0; direction < 2; ++direction) {
      const Outcome at_point = run(c, options);
      at::Tensor& moved = direction == 0 ? c.hidden : c.head;
      const at::Tensor start = moved.clone(), gradient = direction == 0 ? at_point.grad_hidden : at_point.grad_head;
      const at::Tensor step =
          gradient / gradient.norm() + 0.2 * at::sin(at::arange(moved.numel(), at::kDouble) * 1.7).view(moved.sizes()) /
                                           std::sqrt(static_cast<double>(moved.numel()));
      const double expected = (gradient * step).sum().item<double>(), h = 2e-5;
      at::Tensor none, unused;
      const auto loss_at = [&](double distance) {
        moved = start + distance * step;
        return fused_loss(c.hidden, c.head, c.view(), options, unused, none).loss;
      };
      const double slope = (loss_at(h) - loss_at(-h)) / (2 * h);
      moved = start;
      const double error = std::abs(slope - expected) / std::abs(expected);
      if (!(error <= 2e-6)) std::printf("%s: slope %.12g, gradient %.12g\n", named.name.c_str(), slope, expected);
      CHECK(error <= 2e-6);
      worst = std::max(worst, error);
    }
  }
  std::printf("central differences: worst relative error %.2g\n", worst);
}

Case slice(const Case& c, size_t first, size_t last, const std::vector<double>& thresholds) {
  int64_t begin = 0, end = 0;
  for (size_t i = 0; i < last; ++i) (i < first ? begin : end) += c.lengths[i];
  end += begin;
  Case part;
  const auto cut = [&](auto& to, const auto& from, int64_t a, int64_t b) {
    to.assign(from.begin() + a, from.begin() + b);
  };
  part.hidden = c.hidden.narrow(0, begin, end - begin).contiguous();
  part.head = c.head;
  cut(part.ids, c.ids, begin, end);
  cut(part.mask, c.mask, begin, end);
  cut(part.old_log_probs, c.old_log_probs, begin, end);
  cut(part.old_entropies, c.old_entropies, begin, end);
  cut(part.ref_log_probs, c.ref_log_probs, begin, end);
  const auto a = static_cast<int64_t>(first), b = static_cast<int64_t>(last);
  cut(part.lengths, c.lengths, a, b);
  cut(part.group_ids, c.group_ids, a, b);
  cut(part.advantages, c.advantages, a, b);
  if (!thresholds.empty()) cut(part.thresholds, thresholds, a, b);
  part.denominators = c.denominators;
  return part;
}

// Any split into micro-batches gives the same loss and gradients.
void micro_batches() {
  const std::vector<std::vector<size_t>> splits = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 3, 7}, {0, 2, 6, 7}, {0, 4, 5, 7}};
  double worst[2] = {0, 0};
  for (const Named& named : option_list()) {
    for (const auto dtype : {at::kDouble, at::kFloat}) {
      const LossOptions& options = named.options;
      Case c = make_case(131, 5, options.temperature);
      const auto scored = score_tokens(c.hidden.to(dtype), c.head.to(dtype), c.ids, options.temperature).entropies;
      const auto basis = options.entropy_source == EntropySource::rollout
                             ? std::vector<double>(c.old_entropies.begin(), c.old_entropies.end()) : scored;
      // As the trainer does it: thresholds of the wider scopes come from the whole mini-batch. In float32 the entropies
      // of another split differ in the last bit, so a threshold that *is* a token's entropy is moved off it.
      std::vector<double> thresholds =
          class_thresholds<double>(basis, c.mask, c.lengths, c.group_ids, options.rho, options.entropy_scope);
      if (dtype == at::kFloat) {
        for (double& threshold : thresholds) threshold -= 1e-4;
      }
      c.thresholds = thresholds;
      const Outcome whole = run(c, options, dtype);
      for (const auto& split : splits) {
        double loss = 0;
        LossSums sums;
        std::vector<at::Tensor> hidden_parts;
        at::Tensor grad_head = at::zeros(c.head.sizes(), at::TensorOptions().dtype(dtype));
        for (size_t k = 0; k + 1 < split.size(); ++k) {
          const Case part = slice(c, split[k], split[k + 1], c.thresholds);
          at::Tensor grad_hidden;
          const auto result =
              fused_loss(part.hidden.to(dtype), part.head.to(dtype), part.view(), options, grad_hidden, grad_head);
          loss += result.loss;
          sums += result.sums;
          hidden_parts.push_back(grad_hidden);
        }
        const double error = std::max({std::abs(loss - whole.result.loss) / std::abs(whole.result.loss),
                                       relative_error(at::cat(hidden_parts), whole.grad_hidden),
                                       relative_error(grad_head, whole.grad_head)});
        double& most = worst[dtype == at::kFloat];
        most = std::max(most, error);
        if (!(error <= (dtype == at::kFloat ? 1e-6 : 1e-12)))
          std::printf("%s: split error %g\n", named.name.c_str(), error);
        CHECK(error <= (dtype == at::kFloat ? 1e-6 : 1e-12));
        CHECK(sums.total().tokens == whole.result.sums.total().tokens);
        CHECK_NEAR(sums.total().pg_loss, whole.result.sums.total().pg_loss,
                   1e-5 * (1 + std::abs(whole.result.sums.total().pg_loss)));
        CHECK(sums.responses == 7 && sums.responses_without_loss_tokens == 2 && sums.thresholds == 5);
      }
    }
  }
  std::printf("micro-batch splits: worst relative difference %.2g (float64), %.2g (float32)\n", worst[0], worst[1]);
}

// bfloat16 inputs: values as from float64 arithmetic on the same inputs, gradients no worse than the naive bfloat16
// ones; with every instruction set, and without MKL's product.
void bfloat16() {
  Case c = make_case(1000, 17);
  c.hidden = c.hidden.to(at::kBFloat16);
  c.head = c.head.to(at::kBFloat16);
  LossOptions options;
  options.clip_ratio_c = 10;
  options.entropy_coeff = 0.01;
  options.knowledge().kl_coef = 0.05;
  const Case exact_inputs = [&] {
    Case copy = c;
    copy.hidden = c.hidden.to(at::kDouble);
    copy.head = c.head.to(at::kDouble);
    return copy;
  }();
  const auto exact = naive_loss(exact_inputs.hidden, exact_inputs.head, c.view(), options);
  const auto naive = naive_loss(c.hidden, c.head, c.view(), options);
  const at::Tensor in_loss = tensor_of({c.mask.begin(), c.mask.end()});
  const double naive_hidden = relative_error(naive.grad_hidden_TH, exact.grad_hidden_TH),
               naive_head = relative_error(naive.grad_head_VH, exact.grad_head_VH);
  const double naive_logp = ((naive.log_probs.to(at::kDouble) - exact.log_probs).abs() * in_loss).max().item<double>();
  const auto check = [&](const std::string& name) {
    for (const int64_t chunk : {0, 11, 32, 50}) {
      options.chunk_tokens = chunk;
      const Outcome fused = run(c, options, at::kBFloat16);
      const double log_prob_error =
          ((tensor_of(fused.result.log_probs) - exact.log_probs).abs() * in_loss).max().item<double>();
      const double entropy_error =
          ((tensor_of(fused.result.entropies) - exact.entropies).abs() * in_loss).max().item<double>();
      const double hidden_error = relative_error(fused.grad_hidden, exact.grad_hidden_TH),
                   head_error = relative_error(fused.grad_head, exact.grad_head_VH);
      if (chunk == 0) {
        std::printf("bf16 %s: logp %.2g (naive %.2g), H %.2g; grad hidden %.2g (naive %.2g), head %.2g (naive %.2g)\n",
                    name.c_str(), log_prob_error, naive_logp, entropy_error, hidden_error, naive_hidden, head_error,
                    naive_head);
      }
      CHECK(log_prob_error <= 2e-4 && entropy_error <= 2e-4);
      CHECK(hidden_error <= naive_hidden && head_error <= naive_head);
      CHECK(fused.grad_hidden.scalar_type() == at::kBFloat16 && fused.grad_head.scalar_type() == at::kFloat);
    }
  };
  for_each_isa([&](const char* isa) { check(isa); });
  if (limit_cpu_isa(CpuIsa::avx512) != CpuIsa::plain) use_mkl_bf16_gemm(false);
  check("without MKL");
  use_mkl_bf16_gemm(true);
  limit_cpu_isa(CpuIsa::amx);
}

// A token that its policy holds for nearly impossible (p ~ e^-60), and one that it is sure of (1 - p ~ e^-11): both ends
// of what the tiles' origin, the sampled id's own logit, must bear.
void extreme_probabilities() {
  for_each_isa([](const char* isa) {
    for (const auto dtype : {at::kFloat, at::kBFloat16}) {
      Case c = make_case(1000, 41, 1.0, at::kBFloat16);
      for (const int64_t t : {2, 5, 33, 44}) {
        at::Tensor row = c.hidden.select(0, t);
        row.copy_((c.head[c.ids[t]] * (t % 2 ? 3.0 : -9.0)).to(at::kBFloat16).to(at::kDouble));
      }
      const NaiveLossResult at_point = naive_loss(c.hidden, c.head, c.view(), LossOptions{});
      for (int64_t t = 0; t < 92; ++t) c.old_log_probs[t] = c.ref_log_probs[t] = at_point.log_probs[t].item<double>();
      for (const double bonus : {0.0, 0.02}) {
        LossOptions options;
        options.entropy_coeff = bonus;
        const NaiveLossResult naive = naive_loss(c.hidden, c.head, c.view(), options);
        const Outcome fused = run(c, options, dtype);
        // A sure token's gradient is 1 - p ~ e^-11, a difference of float32 values near 1: 6e-8 / e^-11 of itself.
        const double limit = 2e-2, head_limit = dtype == at::kFloat ? 1e-5 : 1e-2;
        double worst = 0;
        for (const int64_t t : {2, 5, 33, 44}) {
          worst = std::max(worst, relative_error(fused.grad_hidden[t], naive.grad_hidden_TH[t]));
          CHECK_NEAR(fused.result.log_probs[t], naive.log_probs[t].item<double>(), 2e-4);
          CHECK_NEAR(fused.result.entropies[t], naive.entropies[t].item<double>(), 2e-4);
        }
        const double head = relative_error(fused.grad_head, naive.grad_head_VH);
        if (!(worst <= limit && head <= head_limit)) std::printf("%s: %g %g\n", isa, worst, head);
        CHECK(worst <= limit && head <= head_limit);
      }
      CHECK(at_point.log_probs[2].item<double>() < -40 && at_point.log_probs[5].item<double>() > -1e-4);
    }
  });
}

// The three products themselves, against float64, at a shape with odd sizes.
void bf16_products() {
  at::Tensor hidden = at::sin(at::arange(37 * 45, at::kDouble)).view({37, 45}).to(at::kBFloat16);
  at::Tensor head = at::cos(at::arange(9001 * 45, at::kDouble) * 0.37).view({9001, 45}).to(at::kBFloat16);
  at::Tensor dlogits = at::sin(at::arange(37 * 9001, at::kDouble) * 0.11).view({37, 9001}).to(at::kBFloat16);
  const at::Tensor h = hidden.to(at::kDouble), w = head.to(at::kDouble), d = dlogits.to(at::kDouble);
  for (const bool mkl : {true, false}) {
    if (mkl && !mkl_bf16_gemm_available()) continue;
    use_mkl_bf16_gemm(mkl);
    at::Tensor logits = at::empty({37, 9001}), grad_hidden = at::empty({37, 45}), grad_head = at::ones({9001, 45});
    head_logits(hidden, head, logits);
    head_grad_hidden(dlogits, head, grad_hidden);
    head_grad_weight(dlogits, hidden, grad_head);
    const double errors[] = {relative_error(logits, h.mm(w.t())), relative_error(grad_hidden, d.mm(w)),
                             relative_error(grad_head, d.t().mm(h) + 1)};
    std::printf("bf16 products, %s: %.2g %.2g %.2g\n", mkl ? "MKL" : "blocks", errors[0], errors[1], errors[2]);
    for (const double error : errors) CHECK(error <= 2e-6);
  }
  use_mkl_bf16_gemm(true);
}

// Left-out rows: counted, and their garbage (NaN hidden states, ids out of range) never read.
void compaction() {
  const LossOptions plain = [] {
    LossOptions options;
    options.clip_ratio_c = 10;
    options.knowledge().kl_coef = 0;
    return options;
  }();
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Case c = make_case(131, 23);
    const Outcome clean = run(c, plain, dtype);
    int64_t needed = 0;
    const auto rows = clean.grad_hidden.to(at::kDouble).abs().sum(1);
    for (int64_t t = 0; t < 92; ++t) needed += rows[t].item<double>() > 0;
    CHECK(clean.result.backward_rows == needed);
    CHECK(needed > 10 && needed < 60);

    Case dirty = c;
    dirty.hidden = c.hidden.clone();
    for (int64_t t = 0; t < 92; ++t) {
      if (dirty.mask[t]) continue;
      dirty.hidden.select(0, t).fill_(std::numeric_limits<double>::quiet_NaN());
      dirty.ids[t] = -5;
      dirty.old_log_probs[t] = dirty.ref_log_probs[t] = dirty.old_entropies[t] = NAN;
    }
    const Outcome with_garbage = run(dirty, plain, dtype);
    CHECK(with_garbage.result.loss == clean.result.loss);
    CHECK(at::equal(with_garbage.grad_hidden, clean.grad_hidden) && at::equal(with_garbage.grad_head, clean.grad_head));

    // Gradients are added to grad_head, written over grad_hidden; a workspace that is used again changes nothing.
    LossWorkspace workspace;
    Outcome twice = clean;
    twice.grad_hidden = at::full_like(clean.grad_hidden, 3);
    twice.grad_head = clean.grad_head.clone();
    for (int repeat = 0; repeat < 2; ++repeat) {
      fused_loss(c.hidden.to(dtype), c.head.to(dtype), c.view(), plain, twice.grad_hidden, twice.grad_head, nullptr,
                 &workspace);
    }
    CHECK(at::equal(twice.grad_hidden, clean.grad_hidden));
    CHECK(relative_error(twice.grad_head, clean.grad_head * 3) <= 1e-6);

    // A frozen head: the rest to the bit.
    at::Tensor grad_hidden = at::empty_like(clean.grad_hidden), no_gradient;
    const FusedLossResult frozen = fused_loss(c.hidden.to(dtype), c.head.to(dtype), c.view(), plain, grad_hidden, no_gradient);
    CHECK(frozen.loss == clean.result.loss && frozen.backward_rows == needed);
    CHECK(at::equal(grad_hidden, clean.grad_hidden));
  }
  // An entropy bonus needs every token in the loss.
  Case c = make_case(131, 23);
  LossOptions bonus = plain;
  bonus.entropy_coeff = 0.1;
  CHECK(run(c, bonus).result.backward_rows == static_cast<int64_t>(c.denominators.loss_tokens));
}

// -inf logits that no sampled id has (a head row of zeros times an infinite weight cannot be made by a GEMM without
// NaN, so the hidden state carries one coordinate that only some head rows read), and those that one has.
void infinities() {
  Case c = make_case(131, 29);
  c.hidden = at::cat({c.hidden, at::ones({92, 1}, at::kDouble)}, 1).contiguous();
  at::Tensor column = at::zeros({131, 1}, at::kDouble);
  for (const int64_t v : {3, 50}) column[v][0] = -std::numeric_limits<double>::infinity();
  c.head = at::cat({c.head, column}, 1).contiguous();
  for (int32_t& id : c.ids) id = id == 3 || id == 50 ? 4 : id;
  const auto scores = score_tokens(c.hidden, c.head, c.ids, 1.0);
  for (int64_t t = 0; t < 92; ++t) {
    CHECK(std::isfinite(scores.log_probs[t]) && std::isfinite(scores.entropies[t]));
    c.old_log_probs[t] = c.ref_log_probs[t] = scores.log_probs[t];
  }
  LossOptions options;
  options.entropy_coeff = 0.1;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kBFloat16}) {
    const Outcome outcome = run(c, options, dtype);
    CHECK(std::isfinite(outcome.result.loss));
    CHECK(outcome.grad_head.isfinite().all().item<bool>());  // the rows of both ids get no gradient
    CHECK(outcome.grad_head[3].abs().max().item<double>() == 0);
    // dlogits is 0 there, and 0 * -inf in the product with the head is NaN in that one coordinate alone.
    CHECK(outcome.grad_hidden.narrow(1, 0, 24).isfinite().all().item<bool>());
  }
}

void errors_and_abort() {
  const Case good = make_case(131, 31);
  const auto with = [&](auto change) {
    Case c = good;
    c.hidden = c.hidden.clone();
    c.head = c.head.clone();
    change(c);
    run(c, LossOptions{});
  };
  expect_error(kShape, "ids[5] is 131", [&] { with([](Case& c) { c.ids[5] = 131; }); });
  expect_error(kShape, "ids holds 91", [&] { with([](Case& c) { c.ids.pop_back(); }); });
  expect_error(kShape, "hidden has shape [91, 24]",
               [&] { with([](Case& c) { c.hidden = c.hidden.narrow(0, 0, 91); }); });
  expect_error(kShape, "head_weight has shape [131, 23]",
               [&] { with([](Case& c) { c.head = c.head.narrow(1, 0, 23); }); });
  expect_error(kShape, "hidden is Double and head_weight Float", [&] {
    score_tokens(good.hidden, good.head.to(at::kFloat), good.ids, 1);
  });
  expect_error(kShape, "contiguous", [&] { with([](Case& c) { c.head = c.head.t().contiguous().t(); }); });
  expect_error(kNumeric, "logits of token 8", [&] { with([](Case& c) { c.hidden[8][0] = NAN; }); });
  expect_error(kNumeric, "logits of token 1 ", [&] { with([](Case& c) { c.head[7].fill_(INFINITY); }); });
  expect_error(kNumeric, "has probability 0", [&] {
    with([](Case& c) {
      c.hidden.select(1, 0).fill_(1);
      c.head[c.ids[4]].fill_(0);
      c.head[c.ids[4]][0] = -INFINITY;
    });
  });
  expect_error(kShape, "grad_head", [&] {
    at::Tensor grad_hidden, grad_head = at::zeros({131, 24});
    fused_loss(good.hidden, good.head, good.view(), LossOptions{}, grad_hidden, grad_head);
  });
  expect_error(kConfig, "temperature is 0", [&] { score_tokens(good.hidden, good.head, good.ids, 0); });

  JobControl control;
  control.cancelled = true;
  expect_error(kAborted, "aborted", [&] {
    at::Tensor grad_hidden, grad_head = at::zeros_like(good.head);
    fused_loss(good.hidden, good.head, good.view(), LossOptions{}, grad_hidden, grad_head, &control);
  });
  expect_error(kAborted, "aborted", [&] { score_tokens(good.hidden, good.head, good.ids, 1, &control); });

  Case nothing;
  nothing.hidden = at::zeros({0, 24}, at::kDouble);
  nothing.head = good.head;
  CHECK(run(nothing, LossOptions{}).result.loss == 0);
}

// NaN, infinities and impossible ids by name, in the arithmetic of this instruction set; one token; all masked.
void bad_bf16_values() {
  const Case good = make_case(131, 31);
  const auto with = [&](auto change) {
    Case c = good;
    c.hidden = c.hidden.clone();
    c.head = c.head.clone();
    change(c);
    return run(c, LossOptions{}, at::kBFloat16);
  };
  expect_error(kNumeric, "logits of token 8", [&] { with([](Case& c) { c.hidden[8][0] = NAN; }); });
  expect_error(kNumeric, "logits of token 8", [&] { with([](Case& c) { c.hidden[8][0] = INFINITY; }); });
  expect_error(kNumeric, "logits of token 1 ", [&] { with([](Case& c) { c.head[7].fill_(INFINITY); }); });
  expect_error(kNumeric, "logits of token 1 ", [&] { with([](Case& c) { c.head[130][23] = NAN; }); });
  expect_error(kNumeric, "has probability 0", [&] {
    with([](Case& c) {
      c.hidden.select(1, 0).fill_(1);
      c.head[c.ids[4]].fill_(0);
      c.head[c.ids[4]][0] = -INFINITY;
    });
  });
  CHECK(with([](Case& c) { c.mask.assign(92, 0); }).result.backward_rows == 0);
  const Outcome one = with([](Case& c) {
    c.mask.assign(92, 0);
    c.mask[50] = 1;
  });
  CHECK(one.result.backward_rows == 1 && one.grad_hidden[50].abs().max().item<double>() > 0);
  CHECK(one.grad_hidden[49].abs().max().item<double>() == 0);
}

// One thread count, the same bits every time.
void repeatable() {
  const Case c = make_case(1000, 37);
  LossOptions options;
  options.chunk_tokens = 20;
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Outcome first = run(c, options, dtype), second = run(c, options, dtype);
    CHECK(first.result.loss == second.result.loss && first.result.log_probs == second.result.log_probs);
    CHECK(at::equal(first.grad_hidden, second.grad_hidden) && at::equal(first.grad_head, second.grad_head));
  }
}

}  // namespace

int main() {
  at::set_num_threads(1);  // tiny products: on a busy machine two threads spend seconds in barriers
  against_autograd();
  every_instruction_set();
  extreme_probabilities();
  log_probs_and_entropies();
  central_differences();
  micro_batches();
  bf16_products();
  for_each_isa([](const char*) {
    compaction();
    infinities();
    bad_bf16_values();
  });
  errors_and_abort();
  at::set_num_threads(2);
  bfloat16();
  for_each_isa([](const char*) { repeatable(); });
  return check::finish();
}
