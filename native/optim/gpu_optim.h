// The optimizer's two loops on a GPU; blocks.h has the partition.
#pragma once
#include "core/gpu.h"
#include "kernels/adamw.h"
#include "model/transformer.h"
#include "optim/blocks.h"

namespace archer {

// The sum of the squares of float32 gradients, in float64 and a fixed order; waits for it.
double gpu_sum_of_squares(Gpu& gpu, const std::vector<at::Tensor>& grads);

// One update of all masters, with the compute weights written along. coefficients: of the parameters that decay.
void gpu_adamw(Gpu& gpu, std::span<Parameter> parameters, const std::vector<Block>& blocks, const std::vector<at::Tensor>& grads,
               const std::vector<at::Tensor>& exp_avg, const std::vector<at::Tensor>& exp_avg_sq, bool decay_all,
               const kernels::AdamwCoefficients& coefficients);

}  // namespace archer
