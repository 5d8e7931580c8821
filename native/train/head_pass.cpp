#include "train/head_pass.h"

#include <ATen/ATen.h>

#include "model/gpu_ops.h"

namespace archer {
namespace {

at::Tensor index_tensor(const std::vector<int64_t>& rows) { return at::tensor(rows, at::TensorOptions().dtype(at::kLong)); }

// The rows of a GPU's hidden states that predict tokens, and what head_loss.h wants to know of them.
struct GpuRows {
  GpuRows(Gpu& gpu, const at::Tensor& hidden_TH, const Transformer& model, const std::vector<int64_t>& predictors)
      : rows(predictors.begin(), predictors.end()),
        hidden_RH(at::empty({static_cast<int64_t>(rows.size()), hidden_TH.size(1)}, hidden_TH.options())) {
    gpu_gather(gpu, hidden_TH, rows, hidden_RH);
    const at::Tensor& weight = model.head().compute;
    head.hidden_TH = bf16(hidden_RH);
    head.head_VH = bf16(weight);
    head.num_tokens = hidden_RH.size(0);
    head.hidden_size = hidden_RH.size(1);
    head.vocabulary = weight.size(0);
  }
  std::vector<int32_t> rows;
  at::Tensor hidden_RH;
  DeviceHead head;
};

HeadWorkspace& workspace(HeadBuffers& buffers, Gpu& gpu) {
  if (!buffers.gpu) buffers.gpu = std::make_unique<HeadWorkspace>(*gpu.head);
  return *buffers.gpu;
}

HeadPass gpu_head_pass(Gpu& gpu, const at::Tensor& hidden_TH, const Transformer& model, const std::vector<int64_t>& predictors,
                       const LossBatch& batch, const LossOptions& options, const at::Tensor& grad_head_VH, HeadBuffers& buffers,
                       const JobControl* control) {
  GpuRows rows(gpu, hidden_TH, model, predictors);
  const at::Tensor grad_RH = at::empty_like(rows.hidden_RH);
  rows.head.grad_hidden_TH = grad_RH.data_ptr();
  // The kernels form no gradient of the hidden states alone: under adapters the head's is formed and dropped.
  const at::Tensor& weight = model.head().compute;
  const at::Tensor grad_head =
      grad_head_VH.defined() ? grad_head_VH : at::empty(weight.sizes(), weight.options().dtype(at::kFloat)).zero_();
  rows.head.grad_head_VH = pointer<float>(grad_head);
  HeadLossResult loss = head_loss(rows.head, batch, options, {}, workspace(buffers, gpu), control);
  const at::Tensor grad_TH = at::empty_like(hidden_TH).zero_();
  gpu_scatter(gpu, grad_RH, rows.rows, grad_TH);
  return {{loss.loss, std::move(loss.log_probs), std::move(loss.entropies), std::move(loss.classes), std::move(loss.thresholds),
           loss.sums, loss.backward_rows},
          grad_TH};
}

}  // namespace

HeadPass head_pass(const at::Tensor& hidden_TH, const Transformer& model, const std::vector<int64_t>& predictors, const LossBatch& batch,
                   const LossOptions& options, at::Tensor grad_head_VH, HeadBuffers& buffers, const JobControl* control) {
  if (Gpu* gpu = gpu_of(hidden_TH)) {
    return gpu_head_pass(*gpu, hidden_TH, model, predictors, batch, options, grad_head_VH, buffers, control);
  }
  const at::Tensor predictors_R = index_tensor(predictors);
  const at::Tensor hidden_RH = hidden_TH.index_select(0, predictors_R);
  at::Tensor grad_RH = at::empty_like(hidden_RH);
  FusedLossResult loss = fused_loss(hidden_RH, model.head().compute.detach(), batch, options, grad_RH, grad_head_VH, control, &buffers.loss);
  // A hidden state predicts one token, so the rows are distinct and index_copy_ loses nothing.
  return {std::move(loss), at::zeros(hidden_TH.sizes(), grad_RH.options()).index_copy_(0, predictors_R, grad_RH)};
}

TokenScores head_scores(const at::Tensor& hidden_TH, const Transformer& model, const std::vector<int64_t>& predictors,
                        std::span<const int32_t> ids_R, double temperature, HeadBuffers& buffers, const JobControl* control) {
  if (Gpu* gpu = gpu_of(hidden_TH)) {
    const GpuRows rows(*gpu, hidden_TH, model, predictors);
    DeviceScores scores = score_tokens_on(rows.head, ids_R, temperature, {}, workspace(buffers, *gpu), control);
    return {std::move(scores.log_probs), std::move(scores.entropies)};
  }
  return score_tokens(hidden_TH.index_select(0, index_tensor(predictors)), model.head().compute, ids_R, temperature, control);
}

}  // namespace archer
