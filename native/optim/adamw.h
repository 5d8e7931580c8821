// AdamW over a model's parameters: float32 masters (float64 in tests), both moments in the master's dtype, decoupled
// weight decay on those parameters whose `decays` is set. The update is elementwise: bitwise the same for any number of
// threads. Saving and loading go through exp_avg(), exp_avg_sq(), num_steps() and load_state().
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/transformer.h"
#include "optim/blocks.h"

namespace archer {

struct AdamWOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.1;
  bool decay_all = false;  // norms and biases too, as the reference code does
};

class AdamW {
 public:
  // Keeps the span: `parameters` must outlive it, and every master must be loaded. ARCHER_E_CONFIG on a bad option,
  // ARCHER_E_SHAPE on a master that is undefined, not contiguous, or neither float32 nor float64.
  AdamW(std::span<Parameter> parameters, const AdamWOptions& options);

  // One update of every master with the gradient grads[i] * grad_scale (grad_scale: GradNorm::clip_scale). A gradient
  // has its master's shape and dtype. Afterwards the model's refresh_compute_weights() is due,
  // but on a GPU, where the compute weights are written along.
  void step(double lr, const std::vector<at::Tensor>& grads, double grad_scale);

  const AdamWOptions& options() const { return options_; }
  int64_t num_steps() const { return num_steps_; }  // updates made: t of the bias correction
  // One per parameter, of its master's shape and dtype.
  const std::vector<at::Tensor>& exp_avg() const { return exp_avg_; }
  const std::vector<at::Tensor>& exp_avg_sq() const { return exp_avg_sq_; }
  // Copies saved moments in; ARCHER_E_SHAPE where a number or shape differs.
  void load_state(int64_t num_steps, const std::vector<at::Tensor>& exp_avg,
                  const std::vector<at::Tensor>& exp_avg_sq);

 private:
  std::span<Parameter> parameters_;
  AdamWOptions options_;
  int64_t num_steps_ = 0;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  std::vector<Block> blocks_;
};

}  // namespace archer
