#include "kernels/decoder_rows.h"

namespace archer::kernels {
namespace {

template <typename T>
ARCHER_INLINE void rms_norm_body(const T* x, const T* weight, T* out, Accumulator<T>* rstd, int64_t rows, int64_t n,
                                 double eps) {
  using A = Accumulator<T>;
  for (int64_t row = 0; row < rows; ++row, x += n, out += n) {
    A squares = 0;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < n; ++j) squares += widen(x[j]) * widen(x[j]);
    const A scale = A(1) / std::sqrt(squares / static_cast<A>(n) + static_cast<A>(eps));
    if (rstd) rstd[row] = scale;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) out[j] = narrow<T>(widen(narrow<T>(widen(x[j]) * scale)) * widen(weight[j]));
  }
}

// With y = x * rstd: dx = rstd * (dout * w - y * mean(dout * w * y)).
template <typename T>
ARCHER_INLINE void rms_norm_backward_body(const T* x, const T* weight, const Accumulator<T>* rstd,
                                          const Accumulator<T>* dout, Accumulator<T>* sum, T* rounded,
                                          Accumulator<T>* dweight, int64_t rows, int64_t n) {
  using A = Accumulator<T>;
  for (int64_t row = 0; row < rows; ++row, x += n, dout += n, rounded += n) {
    const A scale = rstd[row];
    A dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t j = 0; j < n; ++j) {
      const A share = dout[j] * widen(x[j]) * scale;
      dot += share * widen(weight[j]);
      dweight[j] += share;
    }
    const A mean = dot / static_cast<A>(n) * scale;
    if (sum) {
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) {
        const A total = sum[j] + scale * (dout[j] * widen(weight[j]) - widen(x[j]) * mean);
        sum[j] = total;
        rounded[j] = narrow<T>(total);
      }
      sum += n;
    } else {
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) rounded[j] = narrow<T>(scale * (dout[j] * widen(weight[j]) - widen(x[j]) * mean));
    }
  }
}

template <typename T>
ARCHER_INLINE void swiglu_body(const T* gate, const T* up, T* out, int64_t count) {
  using A = Accumulator<T>;
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) {
    const A g = widen(gate[j]);
    out[j] = narrow<T>(g / (A(1) + exponential(-g)) * widen(up[j]));
  }
}

template <typename T>
ARCHER_INLINE void swiglu_backward_body(T* gate, T* up, const T* dout, T* out, int64_t count) {
  using A = Accumulator<T>;
#pragma omp simd
  for (int64_t j = 0; j < count; ++j) {
    const A g = widen(gate[j]), u = widen(up[j]), d = widen(dout[j]);
    const A sigmoid = A(1) / (A(1) + exponential(-g)), silu = g * sigmoid;
    out[j] = narrow<T>(silu * u);
    up[j] = narrow<T>(d * silu);
    gate[j] = narrow<T>(d * u * sigmoid * (A(1) + g * (A(1) - sigmoid)));
  }
}

template <typename T>
ARCHER_INLINE void rotate_body(const T* x, const T* cosine, const T* sine, const int32_t* positions, T* out,
                               int64_t rows, int64_t heads, int64_t head_dim) {
  using A = Accumulator<T>;
  const int64_t half = head_dim / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const T* c = cosine + positions[row] * half;
    const T* s = sine + positions[row] * half;
    for (int64_t head = 0; head < heads; ++head, x += head_dim, out += head_dim) {
#pragma omp simd
      for (int64_t j = 0; j < half; ++j) {
        const A a = widen(x[j]), b = widen(x[j + half]), cj = widen(c[j]), sj = widen(s[j]);
        out[j] = narrow<T>(a * cj - b * sj);
        out[j + half] = narrow<T>(b * cj + a * sj);
      }
    }
  }
}

template <typename T>
ARCHER_INLINE void rotate_backward_body(Accumulator<T>* grad, const T* cosine, const T* sine, const int32_t* positions,
                                        T* rounded, int64_t rows, int64_t heads, int64_t head_dim) {
  using A = Accumulator<T>;
  const int64_t half = head_dim / 2;
  for (int64_t row = 0; row < rows; ++row) {
    const T* c = cosine + positions[row] * half;
    const T* s = sine + positions[row] * half;
    for (int64_t head = 0; head < heads; ++head, grad += head_dim, rounded += head_dim) {
#pragma omp simd
      for (int64_t j = 0; j < half; ++j) {
        const A cj = widen(c[j]), sj = widen(s[j]), a = grad[j] * cj + grad[j + half] * sj;
        const A b = grad[j + half] * cj - grad[j] * sj;
        grad[j] = a;
        grad[j + half] = b;
        rounded[j] = narrow<T>(a);
        rounded[j + half] = narrow<T>(b);
      }
    }
  }
}

}  // namespace

// target_clones takes plain functions, not templates: each specialisation is stamped out and calls the inlined body.
#define ARCHER_STAMP(T)                                                                                               \
  template <>                                                                                                         \
  ARCHER_CLONES void rms_norm<T>(const T* x, const T* weight, T* out, Accumulator<T>* rstd, int64_t rows, int64_t n,  \
                                 double eps) {                                                                        \
    rms_norm_body<T>(x, weight, out, rstd, rows, n, eps);                                                             \
  }                                                                                                                   \
  template <>                                                                                                         \
  ARCHER_CLONES void rms_norm_backward<T>(const T* x, const T* weight, const Accumulator<T>* rstd,                    \
                                          const Accumulator<T>* dout, Accumulator<T>* sum, T* rounded,                \
                                          Accumulator<T>* dweight, int64_t rows, int64_t n) {                         \
    rms_norm_backward_body<T>(x, weight, rstd, dout, sum, rounded, dweight, rows, n);                                 \
  }                                                                                                                   \
  template <>                                                                                                         \
  ARCHER_CLONES void swiglu<T>(const T* gate, const T* up, T* out, int64_t count) {                                   \
    swiglu_body<T>(gate, up, out, count);                                                                             \
  }                                                                                                                   \
  template <>                                                                                                         \
  ARCHER_CLONES void swiglu_backward<T>(T* gate, T* up, const T* dout, T* out, int64_t count) {                       \
    swiglu_backward_body<T>(gate, up, dout, out, count);                                                              \
  }                                                                                                                   \
  template <>                                                                                                         \
  ARCHER_CLONES void rotate<T>(const T* x, const T* cosine, const T* sine, const int32_t* positions, T* out,          \
                               int64_t rows, int64_t heads, int64_t head_dim) {                                       \
    rotate_body<T>(x, cosine, sine, positions, out, rows, heads, head_dim);                                           \
  }                                                                                                                   \
  template <>                                                                                                         \
  ARCHER_CLONES void rotate_backward<T>(Accumulator<T>* grad, const T* cosine, const T* sine, const int32_t* positions,\
                                        T* rounded, int64_t rows, int64_t heads, int64_t head_dim) {                  \
    rotate_backward_body<T>(grad, cosine, sine, positions, rounded, rows, heads, head_dim);                           \
  }
ARCHER_STAMP(float)
ARCHER_STAMP(double)
ARCHER_STAMP(uint16_t)
#undef ARCHER_STAMP

}  // namespace archer::kernels
