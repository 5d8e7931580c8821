#include "core/attention.h"

#include <ATen/ops/empty.h>

#include "kernels/tile_head.h"

namespace archer {
namespace {

float* kept_scratch(int64_t floats) {
  thread_local at::Tensor scratch;
  if (!scratch.defined() || scratch.numel() < floats) scratch = at::empty({floats}, at::TensorOptions().dtype(at::kFloat));
  return static_cast<float*>(scratch.data_ptr());
}

}  // namespace

bool attention_is_row_exact(at::ScalarType dtype) { return dtype == at::kBFloat16 && kernels::tile_kernels(); }

void tile_attention(const kernels::TileAttention& job) {
  const int64_t floats = kernels::tile_attention_scratch(job.end - job.begin, job.group, job.head_dim);
  kernels::tile_kernels()->attention(job, kept_scratch(floats));
}

void tile_attention_backward(const kernels::TileAttentionBackward& job) {
  const int64_t floats = kernels::tile_attention_backward_scratch(job.length, job.group, job.head_dim);
  kernels::tile_kernels()->attention_backward(job, kept_scratch(floats));
}

}  // namespace archer
