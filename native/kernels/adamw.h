// The two loops of an optimizer step over raw arrays, for one contiguous block; callers split the work in fixed blocks.
//   adamw_update: p -= lr wd p;  m = b1 m + (1-b1) g;  v = b2 v + (1-b2) g^2;
//                 p -= lr/(1-b1^t) * m / (sqrt(v)/sqrt(1-b2^t) + eps)    (as PyTorch orders it)
//   sum_of_squares: sum of g^2 in float64
#pragma once
#include <cstdint>

namespace archer::kernels {

struct AdamwCoefficients {
  double lr = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.0;
  double grad_scale = 1.0;             // multiplies every gradient: gradient clipping costs no pass of its own
  double bias_correction1 = 1.0;       // 1 - beta1^t
  double bias_correction2_sqrt = 1.0;  // sqrt(1 - beta2^t)
};

// Elementwise: the result of an element depends on nothing but its own p, g, m, v. T is float or double.
template <typename T>
void adamw_update(T* p, const T* g, T* m, T* v, int64_t n, const AdamwCoefficients& coefficients);

// The order of the additions depends on n alone.
template <typename T>
double sum_of_squares(const T* g, int64_t n);

}  // namespace archer::kernels
