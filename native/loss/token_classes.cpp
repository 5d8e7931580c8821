// The quantile rule and its three scopes; see token_classes.h.
#include "loss/token_classes.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>

#include "core/error.h"

namespace archer {
namespace {

void check_sizes(size_t num_entropies, size_t num_mask, std::span<const int32_t> lengths_N) {
  int64_t num_tokens = 0;
  for (size_t i = 0; i < lengths_N.size(); ++i) {
    require(lengths_N[i] >= 0, kShape,
            "lengths[" + std::to_string(i) + "] is " + std::to_string(lengths_N[i]) + ", below 0.");
    num_tokens += lengths_N[i];
  }
  require(static_cast<int64_t>(num_entropies) == num_tokens, kShape,
          "entropies holds " + std::to_string(num_entropies) + " values, but the lengths sum to " +
              std::to_string(num_tokens) + ".");
  require(static_cast<int64_t>(num_mask) == num_tokens, kShape, "loss_mask holds " + std::to_string(num_mask) +
          " values, but the lengths sum to " + std::to_string(num_tokens) + ".");
}

}  // namespace

double entropy_quantile(std::span<float> values, double rho) {
  require(!values.empty(), kInternal, "the quantile of no values was asked for");
  const size_t last = values.size() - 1;
  double position = rho * static_cast<double>(last);
  const double nearest = std::nearbyint(position);
  if (std::abs(position - nearest) <= 1e-9) position = nearest;
  const size_t lower = std::min(static_cast<size_t>(position), last);
  const double fraction = position - static_cast<double>(lower);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(lower), values.end());
  const double low_value = values[lower];
  if (fraction <= 0.0 || lower == last) return low_value;
  const double high_value = *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(lower) + 1, values.end());
  return low_value + fraction * (high_value - low_value);
}

template <typename F>
std::vector<double> class_thresholds(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                                     std::span<const int32_t> lengths_N, std::span<const int32_t> group_ids_N,
                                     double rho, EntropyScope scope) {
  check_sizes(entropies_T.size(), loss_mask_T.size(), lengths_N);
  require(scope != EntropyScope::group || group_ids_N.size() == lengths_N.size(), kShape,
          "group_ids holds " + std::to_string(group_ids_N.size()) + " values for " + std::to_string(lengths_N.size()) +
          " responses; entropy_scope group needs one for each.");

  // Pools of entropies that share a threshold, in order of first appearance.
  const size_t num_responses = lengths_N.size();
  std::vector<std::vector<float>> pools;
  std::vector<size_t> pool_of_response(num_responses);
  std::vector<uint8_t> has_tokens(num_responses, 0);
  std::unordered_map<int32_t, size_t> pool_of_group;
  size_t token = 0;
  for (size_t i = 0; i < num_responses; ++i) {
    size_t pool = 0;
    if (scope == EntropyScope::response) pool = i;
    if (scope == EntropyScope::group)
      pool = pool_of_group.try_emplace(group_ids_N[i], pool_of_group.size()).first->second;
    if (pool >= pools.size()) pools.resize(pool + 1);
    pool_of_response[i] = pool;
    for (const size_t end = token + static_cast<size_t>(lengths_N[i]); token < end; ++token) {
      if (loss_mask_T[token] == 0) continue;
      const float entropy = static_cast<float>(entropies_T[token]);
      if (std::isnan(entropy)) {
        throw ArcherError(kNumeric, "entropies[" + std::to_string(token) + "] (response " + std::to_string(i) +
                          ") is NaN, but the token is in the loss.");
      }
      pools[pool].push_back(entropy);
      has_tokens[i] = 1;
    }
  }

  std::vector<double> threshold_of_pool(pools.size(), std::numeric_limits<double>::quiet_NaN());
  for (size_t p = 0; p < pools.size(); ++p) {
    if (!pools[p].empty()) threshold_of_pool[p] = entropy_quantile(pools[p], rho);
  }
  std::vector<double> thresholds(num_responses, std::numeric_limits<double>::quiet_NaN());
  for (size_t i = 0; i < num_responses; ++i) {
    if (has_tokens[i]) thresholds[i] = threshold_of_pool[pool_of_response[i]];
  }
  return thresholds;
}

template <typename F>
std::vector<uint8_t> classify_tokens(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                                     std::span<const int32_t> lengths_N, std::span<const double> thresholds_N,
                                     EntropyTie tie) {
  check_sizes(entropies_T.size(), loss_mask_T.size(), lengths_N);
  require(thresholds_N.size() == lengths_N.size(), kShape, "thresholds holds " + std::to_string(thresholds_N.size()) +
          " values for " + std::to_string(lengths_N.size()) + " responses.");
  std::vector<uint8_t> classes(entropies_T.size(), kNotInLoss);
  size_t token = 0;
  for (size_t i = 0; i < lengths_N.size(); ++i) {
    for (const size_t end = token + static_cast<size_t>(lengths_N[i]); token < end; ++token) {
      if (loss_mask_T[token] == 0) continue;
      if (std::isnan(thresholds_N[i])) {
        throw ArcherError(kNumeric,
                          "thresholds[" + std::to_string(i) + "] is NaN, but the response has tokens in the loss.");
      }
      classes[token] = token_class(entropies_T[token], thresholds_N[i], tie);
    }
  }
  return classes;
}

template <typename F>
TokenClasses token_classes(std::span<const F> entropies_T, std::span<const uint8_t> loss_mask_T,
                           std::span<const int32_t> lengths_N, std::span<const int32_t> group_ids_N,
                           const LossOptions& options) {
  TokenClasses result;
  result.thresholds =
      class_thresholds(entropies_T, loss_mask_T, lengths_N, group_ids_N, options.rho, options.entropy_scope);
  result.classes = classify_tokens<F>(entropies_T, loss_mask_T, lengths_N, result.thresholds, options.entropy_tie);
  return result;
}

#define ARCHER_INSTANTIATE(F)                                                                                      \
  template std::vector<double> class_thresholds<F>(std::span<const F>, std::span<const uint8_t>,                   \
                                                   std::span<const int32_t>, std::span<const int32_t>, double,     \
                                                   EntropyScope);                                                  \
  template std::vector<uint8_t> classify_tokens<F>(std::span<const F>, std::span<const uint8_t>,                   \
                                                   std::span<const int32_t>, std::span<const double>, EntropyTie); \
  template TokenClasses token_classes<F>(std::span<const F>, std::span<const uint8_t>, std::span<const int32_t>,   \
                                         std::span<const int32_t>, const LossOptions&);
ARCHER_INSTANTIATE(float)
ARCHER_INSTANTIATE(double)
#undef ARCHER_INSTANTIATE

}  // namespace archer
