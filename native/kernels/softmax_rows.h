// One row of logits -> log-probability of one id and entropy of the softmax; and back: the gradient row.
// Legend: u_V undivided logits of one row, T the temperature, z = u / T, p = softmax(z).
//   logp = z_id - logsumexp(z);  H = logsumexp(z) - sum_v p_v z_v  (nats)
//   du_v = (1/T) (g ([v = id] - p_v) + b p_v (log p_v + H))  for dL/dlogp = g, dL/dH = -b
// A logit of -inf has probability 0 and adds nothing to H or to the gradient. NaN or +inf anywhere, or nothing but
// -inf, makes every field NaN. float: sums run in float32 within blocks and float64 across them, so that a row of
// 150,000 logits keeps about 1e-7. Callers share rows out among threads; a row's result depends on nothing else.
#pragma once
#include <cstdint>

namespace archer {

template <typename F>
struct SoftmaxRow {
  F max;       // of u
  F log_sum;   // ln sum_v exp((u_v - max) / T)
  F log_prob;
  F entropy;
};

SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature);
SoftmaxRow<double> softmax_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature);

// grad_V may be logits_V itself.
void softmax_row_backward(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                          const SoftmaxRow<float>& row, float grad_log_prob, float entropy_weight, float* grad_V);
void softmax_row_backward(const double* logits_V, int64_t vocabulary, int64_t id, double temperature,
                          const SoftmaxRow<double>& row, double grad_log_prob, double entropy_weight, double* grad_V);

// The same, rounded to bfloat16 (nearest, ties to even), as bit patterns.
void softmax_row_backward_bf16(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                               const SoftmaxRow<float>& row, float grad_log_prob, float entropy_weight,
                               uint16_t* grad_V);

}  // namespace archer
