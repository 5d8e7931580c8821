#include "model/row_attention.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/attention_decode.h"
#include "model/scalar_dispatch.h"

namespace archer {

void row_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const JobControl* control, const at::Tensor& out) {
  require(plan.families.empty(), kInternal, "attention row by row knows no sequences that continue others");
  const std::vector<AttentionPlan::Row> rows = plan.rows();
  const int64_t q_size = q.size(1), kv_size = k.size(1), num_kv_heads = kv_size / head_dim, group = q_size / kv_size;
  const double scale = 1.0 / std::sqrt(static_cast<double>(head_dim));
  dispatch_scalar(q.scalar_type(), [&](auto tag) {
    using T = decltype(tag);
    const T *qp = data<T>(q), *kp = data<T>(k), *vp = data<T>(v);
    T* op = mutable_data<T>(out);
    at::parallel_for(0, static_cast<int64_t>(rows.size()) * num_kv_heads, 1, [&](int64_t begin, int64_t end) {
      std::vector<kernels::Accumulator<T>> scratch(kernels::attention_decode_scratch(group, head_dim));
      std::vector<T> keys, values;  // [length, D] of one head, as pages in their order
      std::vector<int32_t> pages;
      for (int64_t item = begin; item < end; ++item) {
        const int64_t offset = rows[item / num_kv_heads].offset, length = rows[item / num_kv_heads].length;
        const int64_t head = item % num_kv_heads;
        keys.resize(length * head_dim);
        values.resize(length * head_dim);
        pages.resize((length + kernels::kKvPage - 1) / kernels::kKvPage);
        std::iota(pages.begin(), pages.end(), 0);
        for (int64_t t = 0; t < length; ++t) {
          if (control && t % kernels::kKvPage == 0) control->check();
          const int64_t at = (offset + t) * kv_size + head * head_dim;
          std::copy_n(kp + at, head_dim, keys.data() + t * head_dim);
          std::copy_n(vp + at, head_dim, values.data() + t * head_dim);
          const int64_t query = (offset + t) * q_size + head * group * head_dim;
          kernels::attention_decode<T>({qp + query, keys.data(), values.data(), op + query, pages.data(),
                                        kernels::kKvPage * head_dim, group, head_dim, t + 1, scale},
                                       scratch.data());
        }
      }
    });
  });
}

}  // namespace archer
