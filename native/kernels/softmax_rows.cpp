// Vectorised with `omp simd` and cloned per instruction set (the loader picks the clone); see softmax_rows.h.
#include "kernels/softmax_rows.h"

#include <bit>
#include <cmath>
#include <limits>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define ARCHER_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#elif defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ARCHER_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define ARCHER_CLONES
#endif
#define ARCHER_INLINE inline __attribute__((always_inline))

namespace archer {
namespace {

constexpr int64_t kBlock = 256;  // floats summed in float32 before the float64 sum takes over

// e^y for y <= 0, to about 1 ulp; 0 below the smallest normal number. Range reduction by ln 2 in two parts and Cephes'
// expf polynomial. Wants a y that is not NaN.
ARCHER_INLINE float exp_nonpositive(float y) {
  const float x = y < -87.0f ? -87.0f : y;
  const float k = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;  // 1.5 * 2^23 rounds to the nearest integer
  const float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  float poly = 1.9875691500e-4f;
  poly = poly * r + 1.3981999507e-3f;
  poly = poly * r + 8.3334519073e-3f;
  poly = poly * r + 4.1665795894e-2f;
  poly = poly * r + 1.6666665459e-1f;
  poly = poly * r + 5.0000001201e-1f;
  const float mantissa = poly * r * r + r + 1.0f;
  const float scale = std::bit_cast<float>((static_cast<int32_t>(k) + 127) << 23);
  return y < -87.0f ? 0.0f : mantissa * scale;
}

ARCHER_INLINE uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

template <typename F>
SoftmaxRow<F> not_a_row() {
  const F nan = std::numeric_limits<F>::quiet_NaN();
  return {nan, nan, nan, nan};
}

template <typename F>
SoftmaxRow<F> finish_row(F max, double sum, double weighted, F logit, F temperature) {
  const double log_sum = std::log(sum);
  const double log_prob =
      (static_cast<double>(logit) - static_cast<double>(max)) / static_cast<double>(temperature) - log_sum;
  const double entropy = log_sum - weighted / sum;
  return {max, static_cast<F>(log_sum), static_cast<F>(log_prob), static_cast<F>(entropy > 0 ? entropy : 0)};
}

// One element of du without the one-hot part. log_p is held above -87 so that 0 * -inf cannot arise; p is 0 there.
ARCHER_INLINE float gradient_element(float logit, float max, float inverse, float log_sum, float entropy,
                                     float g_over_t, float b_over_t) {
  const float z = (logit - max) * inverse - log_sum;
  const float log_p = z < -100.0f ? -100.0f : z;
  return exp_nonpositive(log_p) * (b_over_t * (log_p + entropy) - g_over_t);
}

}  // namespace

ARCHER_CLONES
SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature) {
  float max = -std::numeric_limits<float>::infinity();
  int bad = 0;
#pragma omp simd reduction(max : max) reduction(| : bad)
  for (int64_t v = 0; v < vocabulary; ++v) {
    const float u = logits_V[v];
    max = u > max ? u : max;
    bad |= !(u <= std::numeric_limits<float>::max());
  }
  if (bad || !(max >= std::numeric_limits<float>::lowest())) return not_a_row<float>();

  const float inverse = 1.0f / temperature;
  double sum = 0, weighted = 0;
  for (int64_t block = 0; block < vocabulary; block += kBlock) {
    const int64_t end = block + kBlock < vocabulary ? block + kBlock : vocabulary;
    float block_sum = 0, block_weighted = 0;
#pragma omp simd reduction(+ : block_sum, block_weighted)
    for (int64_t v = block; v < end; ++v) {
      const float z = (logits_V[v] - max) * inverse;
      const float y = z < -100.0f ? -100.0f : z;
      const float e = exp_nonpositive(y);
      block_sum += e;
      block_weighted += e * y;
    }
    sum += static_cast<double>(block_sum);
    weighted += static_cast<double>(block_weighted);
  }
  return finish_row(max, sum, weighted, logits_V[id], temperature);
}

SoftmaxRow<double> softmax_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t v = 0; v < vocabulary; ++v) {
    if (!(logits_V[v] <= std::numeric_limits<double>::max())) return not_a_row<double>();
    if (logits_V[v] > max) max = logits_V[v];
  }
  if (max == -std::numeric_limits<double>::infinity()) return not_a_row<double>();
  double sum = 0, weighted = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double z = (logits_V[v] - max) / temperature;
    const double e = std::exp(z);
    sum += e;
    if (e > 0) weighted += e * z;
  }
  return finish_row(max, sum, weighted, logits_V[id], temperature);
}

ARCHER_CLONES
void softmax_row_backward(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                          const SoftmaxRow<float>& row, float grad_log_prob, float entropy_weight, float* grad_V) {
  const float inverse = 1.0f / temperature, max = row.max, log_sum = row.log_sum, entropy = row.entropy;
  const float g = grad_log_prob * inverse, b = entropy_weight * inverse;
#pragma omp simd
  for (int64_t v = 0; v < vocabulary; ++v)
    grad_V[v] = gradient_element(logits_V[v], max, inverse, log_sum, entropy, g, b);
  grad_V[id] += g;
}

void softmax_row_backward(const double* logits_V, int64_t vocabulary, int64_t id, double temperature,
                          const SoftmaxRow<double>& row, double grad_log_prob, double entropy_weight, double* grad_V) {
  const double g = grad_log_prob / temperature, b = entropy_weight / temperature;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double log_p = (logits_V[v] - row.max) / temperature - row.log_sum;
    const double p = std::exp(log_p);
    grad_V[v] = p > 0 ? p * (b * (log_p + row.entropy) - g) : 0;
  }
  grad_V[id] += g;
}

ARCHER_CLONES
void softmax_row_backward_bf16(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                               const SoftmaxRow<float>& row, float grad_log_prob, float entropy_weight,
                               uint16_t* grad_V) {
  const float inverse = 1.0f / temperature, max = row.max, log_sum = row.log_sum, entropy = row.entropy;
  const float g = grad_log_prob * inverse, b = entropy_weight * inverse;
#pragma omp simd
  for (int64_t v = 0; v < vocabulary; ++v) {
    grad_V[v] = to_bf16(gradient_element(logits_V[v], max, inverse, log_sum, entropy, g, b));
  }
  // The sampled id from the unrounded value: near p = 1 the two parts nearly cancel.
  grad_V[id] = to_bf16(gradient_element(logits_V[id], max, inverse, log_sum, entropy, g, b) + g);
}

}  // namespace archer
