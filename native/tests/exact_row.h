// One row of logits in float64, written out: log-probability, entropy and the gradient row (archer.md 5) that the head's
// kernels are held against. NaN or +inf, or nothing but -inf: every field NaN.
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

namespace archer {

struct ExactRow {
  double max;      // of the undivided logits
  double log_sum;  // ln sum_v exp((u_v - max) / T)
  double log_prob, entropy;
};

inline ExactRow exact_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::nan("");
  double max = -infinity;
  for (int64_t v = 0; v < vocabulary; ++v) {
    if (!(logits_V[v] < infinity)) return {nan, nan, nan, nan};
    max = logits_V[v] > max ? logits_V[v] : max;
  }
  if (max == -infinity) return {nan, nan, nan, nan};
  double sum = 0, weighted = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double z = (logits_V[v] - max) / temperature, e = std::exp(z);
    sum += e;
    if (e > 0) weighted += e * z;
  }
  const double log_sum = std::log(sum), entropy = log_sum - weighted / sum;
  return {max, log_sum, (logits_V[id] - max) / temperature - log_sum, entropy > 0 ? entropy : 0};
}

// For dL/dlogp = g, dL/dH = -b.
inline void exact_gradient_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature,
                               const ExactRow& row, double g, double b, double* grad_V) {
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double log_p = (logits_V[v] - row.max) / temperature - row.log_sum, p = std::exp(log_p);
    grad_V[v] = p > 0 ? p * (b * (log_p + row.entropy) - g) / temperature : 0;
  }
  grad_V[id] += g / temperature;
}

}  // namespace archer
