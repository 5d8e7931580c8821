// Squares are summed in float64 per fixed block in parallel, then over the blocks in their order on one thread.
#include "optim/grad_norm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "kernels/adamw.h"
#include "optim/blocks.h"
#include "optim/gpu_optim.h"

namespace archer {

namespace {

double sum_of_squares(const std::vector<at::Tensor>& grads) {
  if (Gpu* gpu = grads.empty() ? nullptr : gpu_of(grads.front())) return gpu_sum_of_squares(*gpu, grads);
  const std::vector<Block> blocks = partition(grads);
  std::vector<double> sums(blocks.size());
  at::parallel_for(0, static_cast<int64_t>(blocks.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Block& block = blocks[i];
      const at::Tensor& grad = grads[block.tensor];
      sums[i] = grad.scalar_type() == at::kFloat
                    ? kernels::sum_of_squares(grad.const_data_ptr<float>() + block.begin, block.size)
                    : kernels::sum_of_squares(grad.const_data_ptr<double>() + block.begin, block.size);
    }
  });
  double total = 0.0;
  for (const double sum : sums) total += sum;
  return total;
}

}  // namespace

GradNorm grad_norm(const std::vector<at::Tensor>& grads, double max_norm) {
  std::vector<at::Tensor> defined;
  for (size_t i = 0; i < grads.size(); ++i) {
    if (!grads[i].defined()) continue;
    const at::ScalarType dtype = grads[i].scalar_type();
    const bool usable = grads[i].is_contiguous() && (dtype == at::kFloat || dtype == at::kDouble);
    require(usable, kShape, "gradient " + std::to_string(i) + " must be a contiguous float32 or float64 tensor");
    defined.push_back(grads[i]);
  }
  GradNorm result;
  result.norm = std::sqrt(sum_of_squares(defined));
  result.finite = std::isfinite(result.norm);
  if (!result.finite) {
    result.clip_scale = 0.0;
  } else if (max_norm > 0.0) {
    result.clip_scale = std::min(1.0, max_norm / (result.norm + 1e-6));
  }
  return result;
}

}  // namespace archer
