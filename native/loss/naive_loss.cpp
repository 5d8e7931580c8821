// The reference by autograd; see naive_loss.h.
#include "loss/naive_loss.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "core/error.h"

namespace archer {
namespace {

template <typename V>
at::Tensor tensor_of(std::span<const V> values, at::ScalarType dtype) {
  const std::vector<double> wide(values.begin(), values.end());
  return at::tensor(at::ArrayRef<double>(wide), at::kDouble).to(dtype);
}

// One threshold per response, by a full sort.
std::vector<double> sorted_quantiles(const std::vector<double>& entropies, const LossBatch& batch,
                                     const LossOptions& options) {
  std::map<int64_t, std::vector<double>> pools;
  std::vector<int64_t> key_of_response;
  size_t t = 0;
  for (size_t i = 0; i < batch.lengths.size(); ++i) {
    const int64_t key = options.entropy_scope == EntropyScope::response ? static_cast<int64_t>(i)
                        : options.entropy_scope == EntropyScope::group ? batch.group_ids[i] : 0;
    key_of_response.push_back(key);
    for (int32_t k = 0; k < batch.lengths[i]; ++k, ++t) {
      if (batch.loss_mask[t]) pools[key].push_back(entropies[t]);
    }
  }
  std::vector<double> thresholds;
  for (const int64_t key : key_of_response) {
    auto& pool = pools[key];
    std::sort(pool.begin(), pool.end());
    if (pool.empty()) {
      thresholds.push_back(0);
      continue;
    }
    double position = options.rho * static_cast<double>(pool.size() - 1);
    if (std::abs(position - std::round(position)) <= 1e-9) position = std::round(position);
    const double floor = std::floor(position);
    const double low = pool[static_cast<size_t>(floor)], high = pool[static_cast<size_t>(std::ceil(position))];
    thresholds.push_back(low + (position - floor) * (high - low));
  }
  return thresholds;
}

}  // namespace

NaiveLossResult naive_loss(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                           const LossOptions& options) {
  const int64_t num_tokens = hidden_TH.size(0), num_responses = static_cast<int64_t>(batch.lengths.size());
  const at::ScalarType real = hidden_TH.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor hidden = hidden_TH.detach().clone().requires_grad_(),
                   head = head_VH.detach().clone().requires_grad_();

  const at::Tensor logits_TV = at::linear(hidden, head).to(real) / options.temperature;
  const at::Tensor log_softmax_TV = at::log_softmax(logits_TV, -1);
  const at::Tensor ids = tensor_of(batch.ids, at::kLong);
  const at::Tensor log_prob = log_softmax_TV.gather(1, ids.unsqueeze(1)).squeeze(1);
  const at::Tensor entropy = -(log_softmax_TV.exp() * log_softmax_TV).sum(-1);

  // response_NT: 1 where token t belongs to response i and is in the loss.
  const at::Tensor mask = tensor_of(batch.loss_mask, real).ne(0).to(real);
  at::Tensor response_NT = at::zeros({num_responses, num_tokens}, at::TensorOptions().dtype(real));
  for (int64_t i = 0, t = 0; i < num_responses; t += batch.lengths[static_cast<size_t>(i++)]) {
    response_NT[i].narrow(0, t, batch.lengths[static_cast<size_t>(i)]).fill_(1);
  }
  const at::Tensor spread_TN = response_NT.t();
  response_NT = response_NT * mask;

  const at::Tensor basis =
      (options.entropy_source == EntropySource::rollout ? tensor_of(batch.old_entropies, at::kDouble)
                                                        : entropy.detach())
          .to(at::kFloat)
          .to(at::kDouble)
          .contiguous();
  const std::vector<double> basis_values(basis.data_ptr<double>(), basis.data_ptr<double>() + num_tokens);
  const std::vector<double> thresholds = batch.thresholds.empty()
      ? sorted_quantiles(basis_values, batch, options)
      : std::vector<double>(batch.thresholds.begin(), batch.thresholds.end());
  std::vector<int64_t> classes(static_cast<size_t>(num_tokens), kNotInLoss);
  for (size_t i = 0, t = 0; i < thresholds.size(); ++i) {
    for (int32_t k = 0; k < batch.lengths[i]; ++k, ++t) {
      if (!batch.loss_mask[t]) continue;
      classes[t] =
          options.entropy_tie == EntropyTie::gt ? basis_values[t] > thresholds[i] : basis_values[t] >= thresholds[i];
    }
  }
  const at::Tensor class_T = at::tensor(classes, at::kLong);
  const at::Tensor is_knowledge = class_T.eq(kKnowledge).to(real), is_reasoning = class_T.eq(kReasoning).to(real);
  const auto by_class = [&](double knowledge, double reasoning) {
    return is_knowledge * knowledge + is_reasoning * reasoning;
  };

  const at::Tensor advantage = at::mv(spread_TN, tensor_of(batch.advantages, real));
  const at::Tensor ratio = at::exp(at::clamp(log_prob - tensor_of(batch.old_log_probs, real), -20.0, 20.0));
  const at::Tensor clipped =
      at::minimum(at::maximum(ratio, 1.0 - by_class(options.knowledge().clip_low, options.reasoning().clip_low)),
                  1.0 + by_class(options.knowledge().clip_high, options.reasoning().clip_high));
  at::Tensor pg = at::maximum(-advantage * ratio, -advantage * clipped);
  if (options.clip_ratio_c > 0) {
    pg = at::where(advantage < 0, at::minimum(pg, -advantage * options.clip_ratio_c), pg);
  }

  at::Tensor kl = at::zeros_like(pg);
  if (options.has_kl()) {
    const at::Tensor ref = tensor_of(batch.ref_log_probs, real), difference = log_prob - ref;
    const at::Tensor d = at::clamp(-difference, -20.0, 20.0);
    const at::Tensor k3 = at::clamp(at::expm1(d) - d, -10.0, 10.0);
    const at::Tensor k2 = 0.5 * difference.square();
    switch (options.kl_type) {
      case KlType::k1: kl = difference; break;
      case KlType::k2: kl = k2; break;
      case KlType::k3: kl = k3; break;
      case KlType::abs: kl = difference.abs(); break;
      case KlType::k3_plus: kl = k2 - k2.detach() + k3.detach(); break;
    }
    kl = kl * by_class(options.knowledge().kl_coef, options.reasoning().kl_coef);
  }

  const auto aggregate = [&](const at::Tensor& values) {
    const at::Tensor sum_N = at::mv(response_NT, values), count_N = response_NT.sum(1).clamp_min(1);
    const Denominators& whole = batch.denominators;
    switch (options.loss_agg_mode) {
      case LossAggMode::token_mean: return sum_N.sum() / whole.loss_tokens;
      case LossAggMode::seq_mean_token_mean: return (sum_N / count_N).sum() / whole.sequences;
      case LossAggMode::seq_mean_token_sum: return sum_N.sum() / whole.sequences;
      case LossAggMode::seq_mean_token_sum_norm: return sum_N.sum() / whole.sequences / options.loss_norm_length;
      case LossAggMode::token_sum: return sum_N.sum();
    }
    throw ArcherError(kInternal, "unknown loss_agg_mode");
  };
  const auto class_mean = [&](const at::Tensor& in_class) {
    const at::Tensor own_NT = response_NT * in_class;
    return (at::mv(own_NT, kl) / own_NT.sum(1).clamp_min(1)).sum() / batch.denominators.sequences;
  };
  at::Tensor loss = aggregate(pg - options.entropy_coeff * entropy);
  loss = loss + (options.kl_normalizer == KlNormalizer::shared ? aggregate(kl)
                                                               : class_mean(is_knowledge) + class_mean(is_reasoning));
  loss.backward();
  return {loss.detach(), log_prob.detach(), entropy.detach(), class_T, hidden.grad(), head.grad()};
}

}  // namespace archer
