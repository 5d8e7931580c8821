// One policy in training: accumulated float32 gradients, AdamW, and the two steps of the inner loop.
//   forward_backward: packed forward -> fused loss -> backward, adding into the gradients
//   optimizer_step:   global norm, clip, AdamW, compute weights renewed, gradients zeroed
// N responses of the micro-batch, R tokens of them
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/job_control.h"
#include "model/training_pass.h"
#include "optim/adamw.h"
#include "train/head_pass.h"

namespace archer {

// lib/native/types.ts, PackedBatch
struct TrainBatch {
  PackedResponses packed;
  std::vector<uint8_t> loss_mask;    // [R]
  std::vector<float> old_log_probs;  // [R]
  std::vector<float> old_entropies;  // [R] or empty
  std::vector<float> ref_log_probs;  // [R] or empty
  std::vector<float> advantages;     // [N]
  std::vector<double> thresholds;    // [N] or empty
  Denominators denominators;
};

struct MicroBatchResult {
  double loss = 0;
  LossSums sums;
  std::vector<float> log_probs;   // [R]
  std::vector<float> entropies;   // [R]
  std::vector<uint8_t> classes;   // [R]
};

struct OptimizerStep {
  double grad_norm = 0;
  bool skipped = false;  // the norm was not finite; weights and moments are untouched
};

class Trainer {
 public:
  // checkpoint: of TrainingPass.
  Trainer(std::shared_ptr<Transformer> model, const AdamWOptions& options, bool checkpoint);

  MicroBatchResult forward_backward(const TrainBatch& batch, const LossOptions& options, JobControl* control);
  OptimizerStep optimizer_step(double lr, double grad_clip);
  void zero_grad();
  // Gives back to the system what only forward_backward() uses, until its next call, and what earlier jobs have freed: the next
  // phase of a step has that memory.
  void release_memory();

  const at::Tensor& gradient(const std::string& name) const;
  int64_t num_steps() const { return adamw_.num_steps(); }
  int64_t memory_bytes() const;  // gradients and moments

  // exp_avg.<name>, exp_avg_sq.<name>, and master.<name> where the model computes in another dtype than its masters.
  std::vector<std::pair<std::string, at::Tensor>> state() const;
  // The inverse; ARCHER_E_CHECKPOINT-like faults of single tensors come as ARCHER_E_MODEL with their name.
  void load_state(const std::vector<std::pair<std::string, at::Tensor>>& tensors, int64_t num_steps);

 private:
  size_t index_of(const std::string& name) const;

  std::shared_ptr<Transformer> model_;
  TrainingPass pass_;
  AdamW adamw_;
  std::vector<at::Tensor> grads_;  // one per trained parameter, the master's shape and dtype
  std::optional<size_t> head_index_;  // none: the head is frozen
  HeadBuffers head_buffers_;
};

// Log-probs and entropies [R] of given responses, in one forward.
struct Scores {
  std::vector<float> log_probs;
  std::vector<float> entropies;
};
Scores score(const Transformer& model, const PackedResponses& packed, double temperature, JobControl* control);

}  // namespace archer
