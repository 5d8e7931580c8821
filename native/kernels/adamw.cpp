// AdamW and the sum of squares for one block. The bodies are templates, compiled once per instruction set by inlining
// them into functions that carry a target attribute; the widest that the processor has is chosen at the first call.
#include "kernels/adamw.h"

#include <cmath>

#if defined(__x86_64__)
#define ARCHER_X86_TARGETS 1
#define ARCHER_AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma")))
#define ARCHER_AVX2 __attribute__((target("avx2,fma")))
#endif

namespace archer::kernels {
namespace {

template <typename T>
[[gnu::always_inline]] inline void adamw_body(T* __restrict p, const T* __restrict g, T* __restrict m, T* __restrict v,
                                              int64_t n, const AdamwCoefficients& c) {
  const T beta1 = static_cast<T>(c.beta1), one_minus_beta1 = static_cast<T>(1.0 - c.beta1);
  const T beta2 = static_cast<T>(c.beta2), one_minus_beta2 = static_cast<T>(1.0 - c.beta2);
  const T keep = static_cast<T>(1.0 - c.lr * c.weight_decay);
  const T step_size = static_cast<T>(c.lr / c.bias_correction1);
  const T denominator_scale = static_cast<T>(1.0 / c.bias_correction2_sqrt);
  const T eps = static_cast<T>(c.eps), grad_scale = static_cast<T>(c.grad_scale);
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const T grad = g[i] * grad_scale;
    const T first = beta1 * m[i] + one_minus_beta1 * grad;
    const T second = beta2 * v[i] + one_minus_beta2 * (grad * grad);
    m[i] = first;
    v[i] = second;
    p[i] = keep * p[i] - step_size * first / (std::sqrt(second) * denominator_scale + eps);
  }
}

// Sixteen running sums, always, so that the order of the additions is the same on every processor.
template <typename T>
[[gnu::always_inline]] inline double sum_of_squares_body(const T* __restrict g, int64_t n) {
  constexpr int64_t kLanes = 16;
  double lanes[kLanes] = {};
  const int64_t whole = n - n % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
#pragma omp simd
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double value = static_cast<double>(g[i + lane]);
      lanes[lane] += value * value;
    }
  }
  for (int64_t i = whole; i < n; ++i) lanes[i - whole] += static_cast<double>(g[i]) * static_cast<double>(g[i]);
  double sum = 0.0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

template <typename T>
void adamw_baseline(T* p, const T* g, T* m, T* v, int64_t n, const AdamwCoefficients& c) {
  adamw_body(p, g, m, v, n, c);
}
template <typename T>
double sum_of_squares_baseline(const T* g, int64_t n) {
  return sum_of_squares_body(g, n);
}

#if ARCHER_X86_TARGETS
template <typename T>
ARCHER_AVX512 void adamw_avx512(T* p, const T* g, T* m, T* v, int64_t n, const AdamwCoefficients& c) {
  adamw_body(p, g, m, v, n, c);
}
template <typename T>
ARCHER_AVX2 void adamw_avx2(T* p, const T* g, T* m, T* v, int64_t n, const AdamwCoefficients& c) {
  adamw_body(p, g, m, v, n, c);
}
template <typename T>
ARCHER_AVX512 double sum_of_squares_avx512(const T* g, int64_t n) {
  return sum_of_squares_body(g, n);
}
template <typename T>
ARCHER_AVX2 double sum_of_squares_avx2(const T* g, int64_t n) {
  return sum_of_squares_body(g, n);
}

bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma");
}
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
#endif

}  // namespace

template <typename T>
void adamw_update(T* p, const T* g, T* m, T* v, int64_t n, const AdamwCoefficients& coefficients) {
#if ARCHER_X86_TARGETS
  static const auto chosen = has_avx512() ? adamw_avx512<T> : has_avx2() ? adamw_avx2<T> : adamw_baseline<T>;
#else
  static const auto chosen = adamw_baseline<T>;
#endif
  chosen(p, g, m, v, n, coefficients);
}

template <typename T>
double sum_of_squares(const T* g, int64_t n) {
#if ARCHER_X86_TARGETS
  static const auto chosen = has_avx512() ? sum_of_squares_avx512<T>
                             : has_avx2() ? sum_of_squares_avx2<T>
                                          : sum_of_squares_baseline<T>;
#else
  static const auto chosen = sum_of_squares_baseline<T>;
#endif
  return chosen(g, n);
}

template void adamw_update<float>(float*, const float*, float*, float*, int64_t, const AdamwCoefficients&);
template void adamw_update<double>(double*, const double*, double*, double*, int64_t, const AdamwCoefficients&);
template double sum_of_squares<float>(const float*, int64_t);
template double sum_of_squares<double>(const double*, int64_t);

}  // namespace archer::kernels
