// The host side of AdamW: checks shapes, computes the bias corrections, hands fixed blocks to the kernel.
#include "optim/adamw.h"

#include <ATen/Parallel.h>

#include <cmath>
#include <string>

#include "core/error.h"
#include "core/flat_tensors.h"
#include "kernels/adamw.h"
#include "optim/gpu_optim.h"

namespace archer {
namespace {

void require_range(bool holds, const char* name, double value, const char* range) {
  require(holds, kConfig, std::string(name) + " is " + std::to_string(value) + "; it must be " + range);
}

template <typename T>
void update_block(const Block& block, const at::Tensor& master, const at::Tensor& grad, const at::Tensor& exp_avg,
                  const at::Tensor& exp_avg_sq, const kernels::AdamwCoefficients& coefficients) {
  kernels::adamw_update(master.mutable_data_ptr<T>() + block.begin, grad.const_data_ptr<T>() + block.begin,
                        exp_avg.mutable_data_ptr<T>() + block.begin, exp_avg_sq.mutable_data_ptr<T>() + block.begin,
                        block.size, coefficients);
}

}  // namespace

AdamW::AdamW(std::span<Parameter> parameters, const AdamWOptions& options)
    : parameters_(parameters), options_(options) {
  require_range(options.beta1 >= 0.0 && options.beta1 < 1.0, "beta1", options.beta1, "in [0, 1)");
  require_range(options.beta2 >= 0.0 && options.beta2 < 1.0, "beta2", options.beta2, "in [0, 1)");
  require_range(options.eps >= 0.0 && std::isfinite(options.eps), "eps", options.eps, "finite and not negative");
  require_range(options.weight_decay >= 0.0 && std::isfinite(options.weight_decay), "weight_decay",
                options.weight_decay, "finite and not negative");
  std::vector<at::Tensor> masters;
  for (const Parameter& parameter : parameters_) {
    const at::Tensor& master = parameter.master;
    const bool usable = master.defined() && master.is_contiguous() &&
                        (master.scalar_type() == at::kFloat || master.scalar_type() == at::kDouble);
    require(usable, kShape,
            "the master of " + parameter.name + " must be a loaded, contiguous float32 or float64 tensor");
    masters.push_back(master);
  }
  exp_avg_ = flat_zeros_like(masters);
  exp_avg_sq_ = flat_zeros_like(masters);
  blocks_ = partition(masters);
}

void AdamW::step(double lr, const std::vector<at::Tensor>& grads, double grad_scale) {
  require_range(lr >= 0.0 && std::isfinite(lr), "lr", lr, "finite and not negative");
  require_range(std::isfinite(grad_scale), "grad_scale", grad_scale, "finite");
  require(grads.size() == parameters_.size(), kShape,
          std::to_string(grads.size()) + " gradients for " + std::to_string(parameters_.size()) + " parameters");
  for (size_t i = 0; i < grads.size(); ++i) {
    const at::Tensor& master = parameters_[i].master;
    const bool usable = grads[i].defined() && grads[i].is_contiguous() &&
                        grads[i].scalar_type() == master.scalar_type() && grads[i].sizes() == master.sizes() &&
                        master.sizes() == exp_avg_[i].sizes();
    require(usable, kShape,
            "the gradient of " + parameters_[i].name + " must be contiguous and have its master's shape and dtype");
  }

  ++num_steps_;
  kernels::AdamwCoefficients decayed;
  decayed.lr = lr;
  decayed.beta1 = options_.beta1;
  decayed.beta2 = options_.beta2;
  decayed.eps = options_.eps;
  decayed.weight_decay = options_.weight_decay;
  decayed.grad_scale = grad_scale;
  decayed.bias_correction1 = 1.0 - std::pow(options_.beta1, static_cast<double>(num_steps_));
  decayed.bias_correction2_sqrt = std::sqrt(1.0 - std::pow(options_.beta2, static_cast<double>(num_steps_)));
  if (Gpu* gpu = grads.empty() ? nullptr : gpu_of(grads.front())) {
    return gpu_adamw(*gpu, parameters_, blocks_, grads, exp_avg_, exp_avg_sq_, options_.decay_all, decayed);
  }
  kernels::AdamwCoefficients undecayed = decayed;
  undecayed.weight_decay = 0.0;

  at::parallel_for(0, static_cast<int64_t>(blocks_.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const size_t k = blocks_[i].tensor;
      const Parameter& parameter = parameters_[k];
      const auto& coefficients = parameter.decays || options_.decay_all ? decayed : undecayed;
      if (parameter.master.scalar_type() == at::kFloat) {
        update_block<float>(blocks_[i], parameter.master, grads[k], exp_avg_[k], exp_avg_sq_[k], coefficients);
      } else {
        update_block<double>(blocks_[i], parameter.master, grads[k], exp_avg_[k], exp_avg_sq_[k], coefficients);
      }
    }
  });
}

void AdamW::load_state(int64_t num_steps, const std::vector<at::Tensor>& exp_avg,
                       const std::vector<at::Tensor>& exp_avg_sq) {
  require(num_steps >= 0, kShape, "num_steps is " + std::to_string(num_steps) + "; it must not be negative");
  require(exp_avg.size() == exp_avg_.size() && exp_avg_sq.size() == exp_avg_sq_.size(), kShape,
          "the optimizer state holds " + std::to_string(exp_avg.size()) + " and " + std::to_string(exp_avg_sq.size()) +
              " moments for " + std::to_string(exp_avg_.size()) + " parameters");
  for (size_t i = 0; i < exp_avg_.size(); ++i) {
    const bool usable = exp_avg[i].defined() && exp_avg_sq[i].defined() && exp_avg[i].sizes() == exp_avg_[i].sizes() &&
                        exp_avg_sq[i].sizes() == exp_avg_sq_[i].sizes();
    require(usable, kShape, "the optimizer state of " + parameters_[i].name + " has another shape than the parameter");
  }
  for (size_t i = 0; i < exp_avg_.size(); ++i) {
    exp_avg_[i].copy_(exp_avg[i]);
    exp_avg_sq_[i].copy_(exp_avg_sq[i]);
  }
  num_steps_ = num_steps;
}

}  // namespace archer
