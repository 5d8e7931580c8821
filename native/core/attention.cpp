#include "core/attention.h"

#include <ATen/ops/empty.h>

#include "kernels/tile_head.h"

namespace archer {

bool attention_is_row_exact(at::ScalarType dtype) { return dtype == at::kBFloat16 && kernels::tile_kernels(); }

void tile_attention(const kernels::TileAttention& job) {
  thread_local at::Tensor scratch;
  const int64_t floats = kernels::tile_attention_scratch(job.end - job.begin, job.group, job.head_dim);
  if (!scratch.defined() || scratch.numel() < floats) scratch = at::empty({floats}, at::TensorOptions().dtype(at::kFloat));
  kernels::tile_kernels()->attention(job, static_cast<float*>(scratch.data_ptr()));
}

}  // namespace archer
