// One row of logits -> log-probability of one id and entropy of the softmax, and the row's exponentials, from which the
// gradient row follows by a factor (docs/fused-loss.md):
// Legend: u_V undivided logits of one row, T the temperature, z = u / T, p = softmax(z), e_v = exp((u_v - max u) / T).
//   S = sum_v e_v;  logp = z_id - logsumexp(z);  H = logsumexp(z) - sum_v p_v z_v  (nats)
//   for dL/dlogp = g and dL/dH = -b:  du_v = (1 / (T S)) (e_v (b (log p_v + H) - g) + g S [v = id])
// A logit of -inf has probability 0 and adds nothing to H or to the gradient. NaN or +inf anywhere, or nothing but
// -inf, makes every field NaN. float: sums run in float32 within blocks and float64 across them, so that a row of
// 150,000 logits keeps about 1e-7. Callers share rows out among threads; a row's result depends on nothing else.
#pragma once
#include <cstdint>

namespace archer {

template <typename F>
struct SoftmaxRow {
  F log_prob;
  F entropy;
  double sum;         // S
  double sampled;     // e of the id, not rounded
};

// exponentials_V: e, or null; may be logits_V itself. uint16_t: bfloat16 (nearest, ties to even), as bit patterns.
SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                              float* exponentials_V);
SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                              uint16_t* exponentials_V);
SoftmaxRow<double> softmax_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature,
                               double* exponentials_V);

// For an entropy bonus: e_v <- e_v (alpha + beta ln e_v), 0 where e_v is 0.
void entropy_row(float* exponentials_V, int64_t vocabulary, float alpha, float beta);
void entropy_row(uint16_t* exponentials_V, int64_t vocabulary, float alpha, float beta);
void entropy_row(double* exponentials_V, int64_t vocabulary, double alpha, double beta);

}  // namespace archer
