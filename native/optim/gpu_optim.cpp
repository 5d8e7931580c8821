#include "optim/gpu_optim.h"

#include <ATen/ops/empty.h>

namespace archer {

double gpu_sum_of_squares(Gpu& gpu, const std::vector<at::Tensor>& grads) {
  std::vector<WeightBlock> blocks;
  for (const Block& block : partition(grads)) {
    WeightBlock one{};
    one.grad = pointer<float>(grads[block.tensor]) + block.begin;
    one.size = static_cast<int32_t>(block.size);
    blocks.push_back(one);
  }
  if (blocks.empty()) return 0.0;
  const at::Device device = grads.front().device();
  const auto count = static_cast<int32_t>(blocks.size());
  const at::Tensor blocks_there = upload(device, blocks);
  const at::Tensor sums = at::empty({count + 1}, at::TensorOptions(at::kDouble).device(device));
  double* const partial = pointer<double>(sums);
  gpu.layers->run(SquareSums{pointer<WeightBlock>(blocks_there), partial, count});
  gpu.layers->run(AddSquareSums{partial, partial + count, count});
  double total = 0.0;
  gpu.layers->download(&total, partial + count, sizeof total);
  gpu.layers->synchronize();
  return total;
}

void gpu_adamw(Gpu& gpu, std::span<Parameter> parameters, const std::vector<Block>& blocks, const std::vector<at::Tensor>& grads,
               const std::vector<at::Tensor>& exp_avg, const std::vector<at::Tensor>& exp_avg_sq, bool decay_all,
               const kernels::AdamwCoefficients& c) {
  std::vector<WeightBlock> work;
  for (const auto& [tensor, begin, size] : blocks) {
    const Parameter& parameter = parameters[tensor];
    work.push_back({pointer<float>(parameter.master) + begin, pointer<float>(exp_avg[tensor]) + begin,
                    pointer<float>(exp_avg_sq[tensor]) + begin, pointer<float>(grads[tensor]) + begin,
                    bf16(parameter.compute) + begin, static_cast<int32_t>(size), parameter.decays || decay_all});
  }
  if (work.empty()) return;
  const at::Tensor work_there = upload(grads.front().device(), work);
  AdamwBlocks params{};
  params.blocks = pointer<WeightBlock>(work_there);
  params.num_blocks = static_cast<int32_t>(work.size());
  params.beta1 = static_cast<float>(c.beta1);
  params.one_minus_beta1 = static_cast<float>(1.0 - c.beta1);
  params.beta2 = static_cast<float>(c.beta2);
  params.one_minus_beta2 = static_cast<float>(1.0 - c.beta2);
  params.keep = static_cast<float>(1.0 - c.lr * c.weight_decay);
  params.step_size = static_cast<float>(c.lr / c.bias_correction1);
  params.denominator_scale = static_cast<float>(1.0 / c.bias_correction2_sqrt);
  params.eps = static_cast<float>(c.eps);
  params.grad_scale = static_cast<float>(c.grad_scale);
  gpu.layers->run(params);
}

}  // namespace archer
