#include "model/row_gradients.h"

#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "kernels/decoder_rows.h"
#include "model/gpu_ops.h"
#include "model/scalar_dispatch.h"

namespace archer {
namespace {

constexpr int64_t kBlockRows = 256;    // rows per partial sum of a weight's gradient
constexpr int64_t kGrainColumns = 64;  // of the embedding's gradient

}  // namespace

void rms_norm_backward(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd, const at::Tensor& wide_dy,
                       const at::Tensor& wide_sum, const at::Tensor& rounded, const at::Tensor& grad_weight) {
  if (Gpu* gpu = gpu_of(x)) return gpu_rms_norm_backward(*gpu, x, weight, rstd, wide_dy, wide_sum, rounded, grad_weight);
  const int64_t n = weight.numel(), rows = x.numel() / n, blocks = (rows + kBlockRows - 1) / kBlockRows;
  at::Tensor partial = at::zeros({blocks, n}, rstd.options());
  dispatch_scalar(x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    using A = kernels::Accumulator<T>;
    const T *xp = data<T>(x), *wp = data<T>(weight);
    const A *rp = data<A>(rstd), *gp = data<A>(wide_dy);
    A* sp = wide_sum.defined() ? mutable_data<A>(wide_sum) : nullptr;
    T* op = mutable_data<T>(rounded);
    A* sums = mutable_data<A>(partial);
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows - first), at = first * n;
        kernels::rms_norm_backward<T>(xp + at, wp, rp + first, gp + at, sp ? sp + at : nullptr, op + at, sums + block * n,
                                      count, n);
      }
    });
  });
  if (grad_weight.defined()) grad_weight.add_(partial.sum(0));
}

void swiglu_backward(const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy, const at::Tensor& y) {
  if (Gpu* gpu = gpu_of(y)) return gpu_swiglu_backward(*gpu, gate, up, dy, y);
  dispatch_scalar(gate.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    T *gp = mutable_data<T>(gate), *up_p = mutable_data<T>(up), *yp = mutable_data<T>(y);
    const T* dp = data<T>(dy);
    at::parallel_for(0, gate.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::swiglu_backward<T>(gp + begin, up_p + begin, dp + begin, yp + begin, end - begin);
    });
  });
}

void rotate_backward(const at::Tensor& wide_grad, const Rotation& rotation, const at::Tensor& rounded) {
  if (Gpu* gpu = gpu_of(rounded)) return gpu_rotate_backward(*gpu, wide_grad, rotation, rounded);
  const int64_t rows = wide_grad.size(0), width = wide_grad.size(1), head_dim = 2 * rotation.cosine.size(1);
  dispatch_scalar(rounded.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    using A = kernels::Accumulator<T>;
    const T *cp = data<T>(rotation.cosine), *sp = data<T>(rotation.sine);
    const int32_t* pp = data<int32_t>(rotation.positions_T);
    A* gp = mutable_data<A>(wide_grad);
    T* op = mutable_data<T>(rounded);
    at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
      kernels::rotate_backward<T>(gp + begin * width, cp, sp, pp + begin, op + begin * width, end - begin,
                                  width / head_dim, head_dim);
    });
  });
}

void embedding_backward(const at::Tensor& ids_T, const at::Tensor& wide_dx_TH, const at::Tensor& grad_VH) {
  if (Gpu* gpu = gpu_of(grad_VH)) return gpu_embedding_backward(*gpu, ids_T, wide_dx_TH, grad_VH);
  const int64_t tokens = wide_dx_TH.size(0), hidden = wide_dx_TH.size(1);
  dispatch_scalar(wide_dx_TH.scalar_type(), [&](auto tag) {
    using A = decltype(tag);
    const A* dp = data<A>(wide_dx_TH);
    const int64_t* ids = data<int64_t>(ids_T);
    A* gp = mutable_data<A>(grad_VH);
    at::parallel_for(0, hidden, kGrainColumns, [&](int64_t begin, int64_t end) {
      for (int64_t t = 0; t < tokens; ++t) {
        A* row = gp + ids[t] * hidden;
        for (int64_t j = begin; j < end; ++j) row[j] += dp[t * hidden + j];
      }
    });
  });
}

}  // namespace archer
