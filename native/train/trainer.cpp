#include "train/trainer.h"

#include <ATen/ATen.h>

#include <unordered_map>
#include <utility>

#include "core/flat_tensors.h"
#include "core/freed_memory.h"
#include "core/profile.h"
#include "optim/grad_norm.h"

namespace archer {
namespace {

bool has_own_master(const Parameter& parameter) {
  return parameter.master.data_ptr() != parameter.compute.data_ptr();
}

}  // namespace

Trainer::Trainer(std::shared_ptr<Transformer> model, const AdamWOptions& options, bool checkpoint)
    : model_(std::move(model)), pass_(*model_, checkpoint), adamw_(model_->trained(), options) {
  std::vector<at::Tensor> masters;
  for (const Parameter& parameter : model_->trained()) masters.push_back(parameter.master);
  grads_ = flat_zeros_like(masters);
  if (model_->adapters().empty()) head_index_ = index_of(model_->head().name);
}

size_t Trainer::index_of(const std::string& name) const {
  const auto& parameters = model_->trained();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].name == name) return i;
  }
  throw ArcherError(kModel, "no parameter is named " + name);
}

MicroBatchResult Trainer::forward_backward(const TrainBatch& batch, const LossOptions& options, JobControl* control) {
  const ProfileSpan span("micro-batch");
  const ResponseRows rows = response_rows(batch.packed, model_->device().is_cpu());
  const std::vector<int32_t>& ids = batch.packed.responses.ids;
  const auto check_length = [&](size_t length, const char* name) {
    require(length == ids.size(), kShape,
            std::string(name) + " has " + std::to_string(length) + " entries for " + std::to_string(ids.size()) + " response tokens");
  };
  const auto wide = [&](const std::vector<float>& values_R, const char* name) {
    if (!values_R.empty()) check_length(values_R.size(), name);
    return std::vector<double>(values_R.begin(), values_R.end());
  };
  check_length(batch.loss_mask.size(), "lossMask");
  const std::vector<double> old_log_probs = wide(batch.old_log_probs, "oldLogProbs");
  const std::vector<double> old_entropies = wide(batch.old_entropies, "oldEntropies");
  const std::vector<double> ref_log_probs = wide(batch.ref_log_probs, "refLogProbs");
  LossBatch loss_batch;
  loss_batch.ids = ids;
  loss_batch.lengths = rows.lengths;
  loss_batch.group_ids = batch.packed.prompt_of;
  loss_batch.loss_mask = batch.loss_mask;
  loss_batch.old_log_probs = old_log_probs;
  loss_batch.old_entropies = old_entropies;
  loss_batch.ref_log_probs = ref_log_probs;
  const std::vector<double> advantages(batch.advantages.begin(), batch.advantages.end());
  loss_batch.advantages = advantages;
  loss_batch.thresholds = batch.thresholds;
  loss_batch.denominators = batch.denominators;

  const at::Tensor hidden_TH = pass_.forward(rows.sequences, control);
  const auto [loss, grad_TH] = head_pass(hidden_TH, *model_, rows, loss_batch, options,
                                         head_index_ ? grads_[*head_index_] : at::Tensor(), head_buffers_, control);
  pass_.backward(grad_TH, grads_, control);

  return {loss.loss, loss.sums, {loss.log_probs.begin(), loss.log_probs.end()},
          {loss.entropies.begin(), loss.entropies.end()}, {loss.classes.begin(), loss.classes.end()}};
}

OptimizerStep Trainer::optimizer_step(double lr, double grad_clip) {
  const ProfileSpan span("optimizer step");
  const GradNorm norm = grad_norm(grads_, grad_clip);
  if (norm.finite) {
    adamw_.step(lr, grads_, norm.clip_scale);
    if (model_->device().is_cpu()) model_->refresh_compute_weights();
  }
  zero_grad();
  return {norm.norm, !norm.finite};
}

void Trainer::zero_grad() {
  for (at::Tensor& grad : grads_) grad.zero_();
}

void Trainer::release_memory() {
  pass_.release();
  head_buffers_ = {};
  return_freed_memory();
}

const at::Tensor& Trainer::gradient(const std::string& name) const { return grads_[index_of(name)]; }

int64_t Trainer::memory_bytes() const {
  int64_t bytes = 0;
  for (const at::Tensor& grad : grads_) bytes += 3 * static_cast<int64_t>(grad.nbytes());
  return bytes;
}

std::vector<std::pair<std::string, at::Tensor>> Trainer::state() const {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  const auto& parameters = model_->trained();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (has_own_master(parameters[i])) tensors.emplace_back("master." + parameters[i].name, parameters[i].master);
    tensors.emplace_back("exp_avg." + parameters[i].name, adamw_.exp_avg()[i]);
    tensors.emplace_back("exp_avg_sq." + parameters[i].name, adamw_.exp_avg_sq()[i]);
  }
  return tensors;
}

void Trainer::load_state(const std::vector<std::pair<std::string, at::Tensor>>& tensors, int64_t num_steps) {
  std::unordered_map<std::string, at::Tensor> by_name(tensors.begin(), tensors.end());
  const auto take = [&](const std::string& name) {
    const auto found = by_name.find(name);
    require(found != by_name.end(), kModel, "the trainer state lacks the tensor " + name);
    return found->second;
  };
  std::vector<at::Tensor> exp_avg, exp_avg_sq;
  for (Parameter& parameter : model_->trained()) {
    if (has_own_master(parameter)) parameter.master.copy_(take("master." + parameter.name));
    exp_avg.push_back(take("exp_avg." + parameter.name));
    exp_avg_sq.push_back(take("exp_avg_sq." + parameter.name));
  }
  adamw_.load_state(num_steps, exp_avg, exp_avg_sq);
  model_->refresh_compute_weights();
}

}  // namespace archer
