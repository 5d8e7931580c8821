// The row-wise parts of a decoder layer, forward and backward: RMSNorm, SwiGLU, rotary embedding. One thread each:
// callers split rows over threads. Instantiated for float, double and uint16_t (the bits of a bfloat16).
//   rows x n, row-major, contiguous unless a stride is given; A = Accumulator<T>
#pragma once
#include <cstdint>

#include "kernels/decoder_math.h"

namespace archer::kernels {

// out = weight * T(x * rstd), rstd = 1 / sqrt(mean(x^2) + eps). `rstd` [rows] may be null.
template <typename T>
void rms_norm(const T* x, const T* weight, T* out, Accumulator<T>* rstd, int64_t rows, int64_t n, double eps);

// The gradient dx of dout, added into sum [rows, n] first where there is one; what comes of it is written to `rounded`, which
// may be `sum` where T is A. Adds the rows' share of the weight's gradient into dweight [n].
template <typename T>
void rms_norm_backward(const T* x, const T* weight, const Accumulator<T>* rstd, const Accumulator<T>* dout,
                       Accumulator<T>* sum, T* rounded, Accumulator<T>* dweight, int64_t rows, int64_t n);

// out = gate * sigmoid(gate) * up
template <typename T>
void swiglu(const T* gate, const T* up, T* out, int64_t count);
// In place: gate and up become their gradients. `out` of swiglu() is computed once more, up to rounding.
template <typename T>
void swiglu_backward(T* gate, T* up, const T* dout, T* out, int64_t count);

// Rotates the pairs (i, i + D/2) of every head by the angle of the row's position: cosine and sine are tables
// [positions, D/2]. x, out [rows, heads * D], may be the same.
template <typename T>
void rotate(const T* x, const T* cosine, const T* sine, const int32_t* positions, T* out, int64_t rows, int64_t heads,
            int64_t head_dim);
// The inverse, in place, with the result rounded to T beside it (which may be the same memory where T is A).
template <typename T>
void rotate_backward(Accumulator<T>* grad, const T* cosine, const T* sine, const int32_t* positions, T* rounded, int64_t rows,
                     int64_t heads, int64_t head_dim);

}  // namespace archer::kernels
