#include "model/ops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <optional>

#include "core/linear.h"
#include "kernels/decoder_rows.h"
#include "model/scalar_dispatch.h"

namespace archer {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kBlockRows = 256;       // rows per partial sum of a weight's gradient
constexpr int64_t kGrainElements = 16384;  // less work than this is not worth a second thread

int64_t grain(int64_t row_size) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, row_size)); }

at::ScalarType accumulator(at::ScalarType dtype) { return dtype == at::kDouble ? at::kDouble : at::kFloat; }

at::Tensor rms_norm_forward(const at::Tensor& x, const at::Tensor& weight, double eps, at::Tensor* rstd) {
  const int64_t n = weight.numel(), rows = x.numel() / n;
  at::Tensor out = at::empty_like(x);
  if (rstd) *rstd = at::empty({rows}, x.options().dtype(accumulator(x.scalar_type())));
  dispatch_scalar(x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    using A = kernels::Accumulator<T>;
    const T *xp = data<T>(x), *wp = data<T>(weight);
    T* op = mutable_data<T>(out);
    A* rp = rstd ? mutable_data<A>(*rstd) : nullptr;
    at::parallel_for(0, rows, grain(n), [&](int64_t begin, int64_t end) {
      kernels::rms_norm<T>(xp + begin * n, wp, op + begin * n, rp ? rp + begin : nullptr, end - begin, n, eps);
    });
  });
  return out;
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight, double eps) {
    at::Tensor rstd;
    at::Tensor out = rms_norm_forward(x, weight, eps, &rstd);
    context->save_for_backward({x, weight, rstd});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2], dout = grads[0].contiguous();
    const int64_t n = weight.numel(), rows = x.numel() / n, blocks = (rows + kBlockRows - 1) / kBlockRows;
    at::Tensor dx = at::empty_like(x);
    at::Tensor partial = at::zeros({blocks, n}, rstd.options());
    dispatch_scalar(x.scalar_type(), [&](auto tag) {
      using T = decltype(tag);
      using A = kernels::Accumulator<T>;
      const T *xp = data<T>(x), *wp = data<T>(weight), *gp = data<T>(dout);
      const A* rp = data<A>(rstd);
      T* dp = mutable_data<T>(dx);
      A* sums = mutable_data<A>(partial);
      at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
        for (int64_t block = begin; block < end; ++block) {
          const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows - first);
          kernels::rms_norm_backward<T>(xp + first * n, wp, rp + first, gp + first * n, dp + first * n,
                                        sums + block * n, count, n);
        }
      });
    });
    return {dx, partial.sum(0).to(weight.scalar_type()), at::Tensor()};
  }
};

at::Tensor swiglu_forward(const at::Tensor& gate, const at::Tensor& up) {
  at::Tensor out = at::empty_like(gate);
  dispatch_scalar(gate.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *gp = data<T>(gate), *up_p = data<T>(up);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, gate.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::swiglu<T>(gp + begin, up_p + begin, op + begin, end - begin);
    });
  });
  return out;
}

struct SwiGlu : Function<SwiGlu> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& gate, const at::Tensor& up) {
    context->save_for_backward({gate, up});
    return swiglu_forward(gate, up);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1], dout = grads[0].contiguous();
    at::Tensor dgate = at::empty_like(gate), dup = at::empty_like(up);
    dispatch_scalar(gate.scalar_type(), [&](auto tag) {
      using T = decltype(tag);
      const T *gp = data<T>(gate), *up_p = data<T>(up), *dp = data<T>(dout);
      T *dgp = mutable_data<T>(dgate), *dup_p = mutable_data<T>(dup);
      at::parallel_for(0, gate.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
        kernels::swiglu_backward<T>(gp + begin, up_p + begin, dp + begin, dgp + begin, dup_p + begin, end - begin);
      });
    });
    return {dgate, dup};
  }
};

at::Tensor rotate_rows(const at::Tensor& x, const at::Tensor& cosine, const at::Tensor& sine,
                       const at::Tensor& positions_T, int sine_sign) {
  const int64_t rows = x.size(0), width = x.size(1), head_dim = 2 * cosine.size(1), heads = width / head_dim;
  at::Tensor out = at::empty_like(x);
  dispatch_scalar(x.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *xp = data<T>(x), *cp = data<T>(cosine), *sp = data<T>(sine);
    const int32_t* pp = data<int32_t>(positions_T);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
      kernels::rotate<T>(xp + begin * width, cp, sp, pp + begin, op + begin * width, end - begin, heads, head_dim,
                         sine_sign);
    });
  });
  return out;
}

struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& cosine,
                            const at::Tensor& sine, const at::Tensor& positions_T) {
    context->save_for_backward({cosine, sine, positions_T});
    return rotate_rows(x, cosine, sine, positions_T, 1);
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    return {rotate_rows(grads[0].contiguous(), saved[0], saved[1], saved[2], -1), at::Tensor(), at::Tensor(),
            at::Tensor()};
  }
};

// The tiles' product has no derivative of its own. x [.., K], weight [N, K], bias [N] or undefined.
struct Linear : Function<Linear> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->save_for_backward({x, weight});
    context->saved_data["bias"] = bias.has_value();
    return linear_product(x, weight, bias.value_or(at::Tensor()));
  }

  static variable_list backward(AutogradContext* context, variable_list grads) {
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], dout = grads[0].reshape({-1, weight.size(0)});
    const bool bias = context->saved_data["bias"].toBool();
    return {dout.mm(weight).view(x.sizes()), dout.t().mm(x.reshape({-1, weight.size(1)})),
            bias ? dout.sum(0) : at::Tensor()};
  }
};

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (at::GradMode::is_enabled() && linear_is_row_exact(x.scalar_type())) {
    return Linear::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  }
  return linear_product(x, weight, bias);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  if (at::GradMode::is_enabled()) return RmsNorm::apply(x, weight, eps);
  return rms_norm_forward(x, weight, eps, nullptr);
}

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  if (at::GradMode::is_enabled()) return SwiGlu::apply(gate, up);
  return swiglu_forward(gate, up);
}

at::Tensor rotate(const at::Tensor& x, const Rotation& rotation) {
  if (at::GradMode::is_enabled()) return Rotate::apply(x, rotation.cosine, rotation.sine, rotation.positions_T);
  return rotate_rows(x, rotation.cosine, rotation.sine, rotation.positions_T, 1);
}

}  // namespace archer
