#include "model/ops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty_like.h>

#include "kernels/decoder_rows.h"
#include "model/gpu_ops.h"
#include "model/scalar_dispatch.h"

namespace archer {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor out = at::empty_like(x);
  rms_norm_into(x, weight, eps, out, {});
  return out;
}

void rms_norm_into(const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out, const at::Tensor& rstd) {
  if (Gpu* gpu = gpu_of(x)) return gpu_rms_norm(*gpu, x, weight, eps, out, rstd);
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

void gated_product_into(const at::Tensor& x_TH, Projection gate, Projection up, const at::Tensor& out_TI) {
  if (own_gated_product(x_TH, gate, up, out_TI)) return;
  if (!gate.out_RN.defined()) gate.out_RN = at::empty_like(out_TI);
  if (!up.out_RN.defined()) up.out_RN = at::empty_like(out_TI);
  linear_products(x_TH, {gate, up});
  if (Gpu* gpu = gpu_of(x_TH)) return gpu_swiglu(*gpu, gate.out_RN, up.out_RN, out_TI);
  dispatch_scalar(out_TI.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *gate_p = data<T>(gate.out_RN), *up_p = data<T>(up.out_RN);
    T* out_p = mutable_data<T>(out_TI);
    at::parallel_for(0, out_TI.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::swiglu<T>(gate_p + begin, up_p + begin, out_p + begin, end - begin);
    });
  });
}

void embedding_into(const at::Tensor& table_VH, const at::Tensor& ids_T, const at::Tensor& out_TH) {
  if (Gpu* gpu = gpu_of(table_VH)) {
    const int64_t* ids = ids_T.const_data_ptr<int64_t>();
    return gpu_gather(*gpu, table_VH, {ids, ids + ids_T.numel()}, out_TH);
  }
  at::Tensor out = out_TH;
  at::embedding_out(out, table_VH, ids_T);
}

void rotate_into(const at::Tensor& x, const Rotation& rotation, const at::Tensor& out) {
  if (Gpu* gpu = gpu_of(x)) return gpu_rotate(*gpu, x, rotation, out);
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
