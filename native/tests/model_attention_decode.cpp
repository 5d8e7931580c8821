// The decode attention kernel against libtorch's dense attention, for each dtype, awkward lengths and head sizes.
#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/attention_decode.h"

#include "check.h"

using namespace archer;

namespace {

// keys and values [length, D] lie in the given pages of a pool that holds NaN elsewhere.
template <typename T>
at::Tensor run(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const std::vector<int32_t>& pages) {
  const int64_t length = keys.size(0), head_dim = q.size(1), num_pages = 1 + *std::max_element(pages.begin(), pages.end());
  const auto paged = [&](const at::Tensor& lines) {
    at::Tensor pool = at::full({num_pages, kernels::kKvPage, head_dim}, NAN, lines.options());
    for (int64_t t = 0; t < length; ++t) pool[pages[t / kernels::kKvPage]][t % kernels::kKvPage].copy_(lines[t]);
    return pool;
  };
  const at::Tensor key_pool = paged(keys), value_pool = paged(values);
  at::Tensor out = at::empty_like(q);
  std::vector<kernels::Accumulator<T>> scratch(kernels::attention_decode_scratch(q.size(0), head_dim), NAN);
  const auto data = [](const at::Tensor& tensor) { return static_cast<const T*>(tensor.const_data_ptr()); };
  kernels::attention_decode<T>({data(q), data(key_pool), data(value_pool), static_cast<T*>(out.mutable_data_ptr()), pages.data(),
                                kernels::kKvPage * head_dim, q.size(0), head_dim, length,
                                1 / std::sqrt(static_cast<double>(head_dim))},
                               scratch.data());
  return out;
}

template <typename T>
void compare(at::ScalarType dtype, int64_t group, int64_t length, int64_t head_dim, double spread, double tolerance) {
  const at::Tensor q = (at::randn({group, head_dim}) * spread).to(dtype);
  const at::Tensor keys = at::randn({length, head_dim}).to(dtype);
  const at::Tensor values = at::randn({length, head_dim}).to(dtype);
  std::vector<int32_t> in_order((length + kernels::kKvPage - 1) / kernels::kKvPage), scattered(in_order.size());
  std::iota(in_order.begin(), in_order.end(), 0);
  for (size_t i = 0; i < scattered.size(); ++i) scattered[i] = static_cast<int32_t>((7 * i + 5) % 23);
  const at::Tensor out = run<T>(q, keys, values, in_order);
  CHECK(at::equal(run<T>(q, keys, values, scattered), out));
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
