// The decode attention kernel against libtorch's dense attention, for each dtype, awkward lengths and head sizes.
#include <ATen/ATen.h>

#include <vector>

#include "kernels/attention_decode.h"


#include "check.h"

using namespace archer;

namespace {

template <typename T>
void compare(at::ScalarType dtype, int64_t group, int64_t length, int64_t head_dim, double spread, double tolerance) {
  const at::Tensor q = (at::randn({group, head_dim}) * spread).to(dtype);
  const at::Tensor keys = at::randn({length, head_dim}).to(dtype);
  const at::Tensor values = at::randn({length, head_dim}).to(dtype);
  at::Tensor out = at::empty({group, head_dim}, dtype);
  std::vector<kernels::Accumulator<T>> scratch(kernels::attention_decode_scratch(group, head_dim), NAN);
  kernels::attention_decode<T>(static_cast<const T*>(q.const_data_ptr()), static_cast<const T*>(keys.const_data_ptr()),
                               static_cast<const T*>(values.const_data_ptr()), static_cast<T*>(out.mutable_data_ptr()),
                               scratch.data(), group, length, head_dim, 1 / std::sqrt(static_cast<double>(head_dim)));
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble).unsqueeze(0).unsqueeze(0); };
  const at::Tensor expected = at::scaled_dot_product_attention(wide(q), wide(keys), wide(values)).squeeze();
  CHECK_NEAR((out.to(at::kDouble) - expected.view({group, head_dim})).abs().max().item().toDouble(), 0, tolerance);
}

}  // namespace

int main() {
  at::manual_seed(1);
  for (const int64_t length : {1, 2, 7, 64, 65, 1000}) {
    for (const int64_t head_dim : {6, 64, 128}) {
      for (const int64_t group : {1, 3, 7}) {
        for (const double spread : {1.0, 100.0}) {  // 100: nearly one-hot weights, exponents far below zero
          compare<float>(at::kFloat, group, length, head_dim, spread, spread * 2e-6);
          compare<double>(at::kDouble, group, length, head_dim, spread, 1e-12);
          compare<uint16_t>(at::kBFloat16, group, length, head_dim, spread, 0.02);
        }
      }
    }
  }
  return check::finish();
}
