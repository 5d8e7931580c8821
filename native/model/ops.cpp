#include "model/ops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include "core/linear.h"
#include "kernels/decoder_rows.h"
#include "model/scalar_dispatch.h"

namespace archer {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  return linear_product(x, weight, bias);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor out = at::empty_like(x);
  rms_norm_into(x, weight, eps, out, {});
  return out;
}

void rms_norm_into(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out, const at::Tensor& rstd) {
  const int64_t n = weight.numel(), rows = x.numel() / n;
  dispatch_scalar(x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    using A = kernels::Accumulator<T>;
    const T *xp = data<T>(x), *wp = data<T>(weight);
    T* op = mutable_data<T>(out);
    A* rp = rstd.defined() ? mutable_data<A>(rstd) : nullptr;
    at::parallel_for(0, rows, grain(n), [&](int64_t begin, int64_t end) {
      kernels::rms_norm<T>(xp + begin * n, wp, op + begin * n, rp ? rp + begin : nullptr, end - begin, n, eps);
    });
  });
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor out = at::empty_like(gate);
  swiglu_into(gate, up, out);
  return out;
}

void swiglu_into(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out) {
  dispatch_scalar(gate.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *gp = data<T>(gate), *up_p = data<T>(up);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, gate.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::swiglu<T>(gp + begin, up_p + begin, op + begin, end - begin);
    });
  });
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) {
  const at::Tensor out = at::empty_like(x);
  rotate_into(x, rotation, out);
  return out;
}

void rotate_into(const at::Tensor& x, const Rotation& rotation, const at::Tensor& out) {
  const int64_t rows = x.size(0), width = x.size(1), head_dim = 2 * rotation.cosine.size(1);
  dispatch_scalar(x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *xp = data<T>(x), *cp = data<T>(rotation.cosine), *sp = data<T>(rotation.sine);
    const int32_t* pp = data<int32_t>(rotation.positions_T);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
      kernels::rotate<T>(xp + begin * width, cp, sp, pp + begin, op + begin * width, end - begin, width / head_dim, head_dim);
    });
  });
}

}  // namespace archer
