#include "train/head_pass.h"

#include <ATen/ATen.h>

#include "model/gpu_ops.h"

namespace archer {
namespace {

// The rows of a GPU's hidden states that predict tokens, and what head_loss.h wants to know of them.
struct GpuRows {
  GpuRows(Gpu& gpu, const at::Tensor& hidden_TH, const Transformer& model, const std::vector<int32_t>& predictors)
      : hidden_RH(at::empty({static_cast<int64_t>(predictors.size()), hidden_TH.size(1)}, hidden_TH.options())) {
    gpu_gather(gpu, hidden_TH, predictors, hidden_RH);
    const at::Tensor& weight = model.head().compute;
    head.hidden_TH = bf16(hidden_RH);
    head.head_VH = bf16(weight);
    head.num_tokens = hidden_RH.size(0);
    head.hidden_size = hidden_RH.size(1);
    head.vocabulary = weight.size(0);
  }
  at::Tensor hidden_RH;
  DeviceHead head;
};

HeadWorkspace& workspace(HeadBuffers& buffers, Gpu& gpu) {
  if (!buffers.gpu) buffers.gpu = std::make_unique<HeadWorkspace>(*gpu.head);
  return *buffers.gpu;
}

HeadPass gpu_head_pass(Gpu& gpu, const at::Tensor& hidden_TH, const Transformer& model, const ResponseRows& rows,
                       const LossBatch& batch, const LossOptions& options, const at::Tensor& grad_head_VH, HeadBuffers& buffers,
                       const JobControl* control) {
  require(rows.shared.empty(), kInternal, "responses share no prompts on a GPU");
  GpuRows gathered(gpu, hidden_TH, model, rows.predictors);
  const at::Tensor grad_RH = at::empty_like(gathered.hidden_RH);
  gathered.head.grad_hidden_TH = grad_RH.data_ptr();
  // The kernels form no gradient of the hidden states alone: under adapters the head's is formed and dropped.
  const at::Tensor& weight = model.head().compute;
  const at::Tensor grad_head =
      grad_head_VH.defined() ? grad_head_VH : at::empty(weight.sizes(), weight.options().dtype(at::kFloat)).zero_();
  gathered.head.grad_head_VH = pointer<float>(grad_head);
  HeadLossResult loss = head_loss(gathered.head, batch, options, {}, workspace(buffers, gpu), control);
  const at::Tensor grad_TH = at::empty_like(hidden_TH).zero_();
  gpu_scatter(gpu, grad_RH, rows.predictors, grad_TH);
  return {{loss.loss, std::move(loss.log_probs), std::move(loss.entropies), std::move(loss.classes), std::move(loss.thresholds),
           loss.sums, loss.backward_rows},
          grad_TH};
}

}  // namespace

HeadPass head_pass(const at::Tensor& hidden_TH, const Transformer& model, const ResponseRows& rows, const LossBatch& batch,
                   const LossOptions& options, at::Tensor grad_head_VH, HeadBuffers& buffers, const JobControl* control) {
  if (Gpu* gpu = gpu_of(hidden_TH)) {
    return gpu_head_pass(*gpu, hidden_TH, model, rows, batch, options, grad_head_VH, buffers, control);
  }
  const at::Tensor predictors_R = ids_tensor(rows.predictors);
  const at::Tensor hidden_RH = hidden_TH.index_select(0, predictors_R);
  at::Tensor grad_RH = at::empty_like(hidden_RH);
  FusedLossResult loss = fused_loss(hidden_RH, model.head().compute.detach(), batch, options, grad_RH, grad_head_VH, control, &buffers.loss);
  const at::Tensor grad_TH = at::zeros(hidden_TH.sizes(), grad_RH.options()).index_copy_(0, predictors_R, grad_RH);
  // The last state of a prompt predicts the first token of each of its responses: there the gradients are summed.
  for (const auto& [state, rows_of_state] : rows.shared) {
    grad_TH.select(0, state).copy_(grad_RH.index_select(0, ids_tensor(rows_of_state)).sum(0));
  }
  return {std::move(loss), grad_TH};
}

TokenScores head_scores(const at::Tensor& hidden_TH, const Transformer& model, const ResponseRows& rows,
                        std::span<const int32_t> ids_R, double temperature, HeadBuffers& buffers, const JobControl* control) {
  if (Gpu* gpu = gpu_of(hidden_TH)) {
    const GpuRows gathered(*gpu, hidden_TH, model, rows.predictors);
    DeviceScores scores = score_tokens_on(gathered.head, ids_R, temperature, {}, workspace(buffers, *gpu), control);
    return {std::move(scores.log_probs), std::move(scores.entropies)};
  }
  return score_tokens(hidden_TH.index_select(0, ids_tensor(rows.predictors)), model.head().compute, ids_R, temperature, control);
}

}  // namespace archer
