// Vectorised with `omp simd`: the bodies are inlined into functions that carry a target attribute, one set per instruction
// set, and cpu_isa() picks; see softmax_rows.h.
#include "kernels/softmax_rows.h"

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/cpu_isa.h"

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

// ln x for positive normal x, to about 1e-7 absolute near 1: Cephes' logf, on [1/sqrt 2, sqrt 2).
ARCHER_INLINE float log_positive(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  const int32_t exponent = (bits - 0x3f3504f3) >> 23;
  const float m = std::bit_cast<float>(bits - (exponent << 23)) - 1.0f;
  const float k = static_cast<float>(exponent), square = m * m;
  float poly = 7.0376836292e-2f;
  poly = poly * m - 1.1514610310e-1f;
  poly = poly * m + 1.1676998740e-1f;
  poly = poly * m - 1.2420140846e-1f;
  poly = poly * m + 1.4249322787e-1f;
  poly = poly * m - 1.6668057665e-1f;
  poly = poly * m + 2.0000714765e-1f;
  poly = poly * m - 2.4999993993e-1f;
  poly = poly * m + 3.3333331174e-1f;
  return (poly * m * square - k * 2.12194440e-4f - 0.5f * square) + m + k * 0.693359375f;
}

ARCHER_INLINE uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

ARCHER_INLINE float widen(float value) { return value; }
ARCHER_INLINE float widen(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

template <typename F>
SoftmaxRow<F> not_a_row() {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  return {static_cast<F>(nan), static_cast<F>(nan), nan, nan};
}

template <typename F>
SoftmaxRow<F> finish_row(double sum, double weighted, double sampled_z) {
  const double log_sum = std::log(sum), entropy = log_sum - weighted / sum;
  return {static_cast<F>(sampled_z - log_sum), static_cast<F>(entropy > 0 ? entropy : 0), sum, std::exp(sampled_z)};
}

// Adds sum e and sum e y of one block; Out void: the exponentials are not wanted.
template <typename Out>
ARCHER_INLINE void sum_block(const float* logits, int64_t count, float max, float inverse, Out* exponentials, double& sum,
                             double& weighted) {
  float block_sum = 0, block_weighted = 0;
#pragma omp simd reduction(+ : block_sum, block_weighted)
  for (int64_t v = 0; v < count; ++v) {
    const float z = (logits[v] - max) * inverse;
    const float y = z < -100.0f ? -100.0f : z;
    const float e = exp_nonpositive(y);
    block_sum += e;
    block_weighted += e * y;
    if constexpr (std::is_same_v<Out, float>) exponentials[v] = e;
    if constexpr (std::is_same_v<Out, uint16_t>) exponentials[v] = to_bf16(e);
  }
  sum += static_cast<double>(block_sum);
  weighted += static_cast<double>(block_weighted);
}

template <typename Out>
ARCHER_INLINE SoftmaxRow<float> softmax_row_body(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                                                 Out* exponentials_V) {
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
  const double sampled_z = (static_cast<double>(logits_V[id]) - static_cast<double>(max)) / static_cast<double>(temperature);
  double sum = 0, weighted = 0;
  for (int64_t block = 0; block < vocabulary; block += kBlock) {
    const int64_t count = vocabulary - block < kBlock ? vocabulary - block : kBlock;
    if (exponentials_V) {
      sum_block(logits_V + block, count, max, inverse, exponentials_V + block, sum, weighted);
    } else {
      sum_block<void>(logits_V + block, count, max, inverse, nullptr, sum, weighted);
    }
  }
  return finish_row<float>(sum, weighted, sampled_z);
}

template <typename Out>
ARCHER_INLINE void entropy_row_body(Out* exponentials_V, int64_t vocabulary, float alpha, float beta) {
#pragma omp simd
  for (int64_t v = 0; v < vocabulary; ++v) {
    const float e = widen(exponentials_V[v]);
    const float positive = e > 0.0f ? e : 1.0f;
    const float changed = e * (alpha + beta * log_positive(positive));
    if constexpr (std::is_same_v<Out, float>) exponentials_V[v] = changed;
    else exponentials_V[v] = to_bf16(changed);
  }
}

struct RowKernels {
  SoftmaxRow<float> (*forward)(const float*, int64_t, int64_t, float, float*);
  SoftmaxRow<float> (*forward_bf16)(const float*, int64_t, int64_t, float, uint16_t*);
  void (*entropy)(float*, int64_t, float, float);
  void (*entropy_bf16)(uint16_t*, int64_t, float, float);
};

#define ARCHER_ROW_KERNELS(name, target)                                                                             \
  target SoftmaxRow<float> forward_##name(const float* u, int64_t vocabulary, int64_t id, float t, float* e) {       \
    return softmax_row_body(u, vocabulary, id, t, e);                                                                \
  }                                                                                                                  \
  target SoftmaxRow<float> forward_bf16_##name(const float* u, int64_t vocabulary, int64_t id, float t, uint16_t* e) { \
    return softmax_row_body(u, vocabulary, id, t, e);                                                                \
  }                                                                                                                  \
  target void entropy_##name(float* e, int64_t vocabulary, float alpha, float beta) {                                \
    entropy_row_body(e, vocabulary, alpha, beta);                                                                    \
  }                                                                                                                  \
  target void entropy_bf16_##name(uint16_t* e, int64_t vocabulary, float alpha, float beta) {                        \
    entropy_row_body(e, vocabulary, alpha, beta);                                                                    \
  }                                                                                                                  \
  constexpr RowKernels k_##name{forward_##name, forward_bf16_##name, entropy_##name, entropy_bf16_##name};

ARCHER_ROW_KERNELS(plain, )
#if defined(__x86_64__)
ARCHER_ROW_KERNELS(avx2, __attribute__((target("avx2,fma"))))
ARCHER_ROW_KERNELS(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))))
#endif
#undef ARCHER_ROW_KERNELS

const RowKernels& row_kernels() {
#if defined(__x86_64__)
  if (cpu_isa() >= CpuIsa::avx512) return k_avx512;
  if (cpu_isa() == CpuIsa::avx2) return k_avx2;
#endif
  return k_plain;
}

}  // namespace

SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                              float* exponentials_V) {
  return row_kernels().forward(logits_V, vocabulary, id, temperature, exponentials_V);
}

SoftmaxRow<float> softmax_row(const float* logits_V, int64_t vocabulary, int64_t id, float temperature,
                              uint16_t* exponentials_V) {
  return row_kernels().forward_bf16(logits_V, vocabulary, id, temperature, exponentials_V);
}

SoftmaxRow<double> softmax_row(const double* logits_V, int64_t vocabulary, int64_t id, double temperature,
                               double* exponentials_V) {
  double max = -std::numeric_limits<double>::infinity();
  for (int64_t v = 0; v < vocabulary; ++v) {
    if (!(logits_V[v] <= std::numeric_limits<double>::max())) return not_a_row<double>();
    if (logits_V[v] > max) max = logits_V[v];
  }
  if (max == -std::numeric_limits<double>::infinity()) return not_a_row<double>();
  const double sampled_z = (logits_V[id] - max) / temperature;
  double sum = 0, weighted = 0;
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double z = (logits_V[v] - max) / temperature;
    const double e = std::exp(z);
    sum += e;
    if (e > 0) weighted += e * z;
    if (exponentials_V) exponentials_V[v] = e;
  }
  return finish_row<double>(sum, weighted, sampled_z);
}

void entropy_row(float* exponentials_V, int64_t vocabulary, float alpha, float beta) {
  row_kernels().entropy(exponentials_V, vocabulary, alpha, beta);
}

void entropy_row(uint16_t* exponentials_V, int64_t vocabulary, float alpha, float beta) {
  row_kernels().entropy_bf16(exponentials_V, vocabulary, alpha, beta);
}

void entropy_row(double* exponentials_V, int64_t vocabulary, double alpha, double beta) {
  for (int64_t v = 0; v < vocabulary; ++v) {
    const double e = exponentials_V[v];
    exponentials_V[v] = e > 0 ? e * (alpha + beta * std::log(e)) : 0;
  }
}

}  // namespace archer
