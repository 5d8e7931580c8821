// Chunks, two passes, row compaction; see fused_loss.h.
#include "loss/fused_loss.h"

#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <string>
#include <type_traits>

#include "core/error.h"
#include "core/profile.h"
#include "loss/logits_pass.h"
#include "loss/tile_pass.h"

namespace archer {
namespace {

std::string shape_text(const at::Tensor& tensor) {
  std::string text = "[";
  for (int64_t d = 0; d < tensor.dim(); ++d) text += (d ? ", " : "") + std::to_string(tensor.size(d));
  return text + "]";
}

void check_matrices(const at::Tensor& hidden_TH, const at::Tensor& head_VH, size_t num_tokens, size_t num_ids) {
  require(num_ids == num_tokens, kShape, "ids holds " + std::to_string(num_ids) + " values, expected " +
          std::to_string(num_tokens) + ", one per token.");
  require(hidden_TH.defined() && hidden_TH.dim() == 2 && hidden_TH.size(0) == static_cast<int64_t>(num_tokens), kShape,
          "hidden has shape " + (hidden_TH.defined() ? shape_text(hidden_TH) : "(undefined)") + ", expected [" +
          std::to_string(num_tokens) + ", hidden size].");
  require(head_VH.defined() && head_VH.dim() == 2 && head_VH.size(0) > 0 && head_VH.size(1) == hidden_TH.size(1),
          kShape,
          "head_weight has shape " + (head_VH.defined() ? shape_text(head_VH) : "(undefined)") +
              ", expected [vocabulary, " + std::to_string(hidden_TH.size(1)) + "].");
  const auto dtype = hidden_TH.scalar_type();
  require(dtype == head_VH.scalar_type() && (dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble),
          kShape,
          std::string("hidden is ") + c10::toString(dtype) + " and head_weight " +
              c10::toString(head_VH.scalar_type()) + "; both must be float32, bfloat16 or float64.");
  require(hidden_TH.is_contiguous() && head_VH.is_contiguous(), kShape, "hidden and head_weight must be contiguous.");
}

void check_gradient(const char* name, const at::Tensor& gradient, const at::Tensor& like, bool dtype_fits) {
  require(gradient.sizes() == like.sizes() && dtype_fits && gradient.is_contiguous(), kShape,
          std::string(name) + " is " + c10::toString(gradient.scalar_type()) + " of shape " + shape_text(gradient) +
          ", expected a contiguous " + shape_text(like) + " of float32, or of float64 for float64 inputs.");
}

// Cuts rows (tokens in the loss) into segments whose classes can be decided together, each at most a chunk where
// possible: returns the segments' ends. Whole responses are packed greedily; one longer than a chunk stands alone.
std::vector<size_t> segment_ends(const std::vector<int64_t>& rows, const std::vector<int32_t>& response_of_token,
                                 DecisionUnit unit, size_t chunk) {
  std::vector<size_t> ends;
  const size_t n = rows.size();
  if (unit == DecisionUnit::batch) {
    if (n > 0) ends.push_back(n);
    return ends;
  }
  size_t begin = 0, response_begin = 0;
  for (size_t r = 1; r <= n; ++r) {
    if (unit == DecisionUnit::token) {
      if (r == n || r - begin == chunk) ends.push_back(begin = r);
      continue;
    }
    if (r < n && response_of_token[rows[r]] == response_of_token[rows[r - 1]]) continue;
    if (r - begin > chunk && response_begin > begin) ends.push_back(begin = response_begin);
    if (r - begin >= chunk || r == n) ends.push_back(begin = r);
    response_begin = r;
  }
  return ends;
}

template <class Pass>
FusedLossResult fused_loss_impl(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                                const LossOptions& options, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH,
                                const JobControl* control, LossWorkspace& workspace) {
  using F = typename Pass::Scalar;
  TokenLossEvaluator<F> evaluator(batch, options);
  check_matrices(hidden_TH, head_VH, batch.loss_mask.size(), batch.ids.size());
  const bool wants_gradients = grad_head_VH.defined() || grad_hidden_TH.defined();
  if (wants_gradients) {
    const auto dtype = hidden_TH.scalar_type();
    if (grad_head_VH.defined()) {
      check_gradient("grad_head", grad_head_VH, head_VH,
                     grad_head_VH.scalar_type() == c10::CppTypeToScalarType<F>::value);
    }
    if (grad_hidden_TH.defined()) {
      const auto given = grad_hidden_TH.scalar_type();
      check_gradient("grad_hidden", grad_hidden_TH, hidden_TH,
                     given == dtype || (given == at::kFloat && dtype == at::kBFloat16));
      grad_hidden_TH.zero_();
    } else {
      grad_hidden_TH = at::zeros_like(hidden_TH);
    }
  }

  Pass pass(hidden_TH, head_VH, batch.ids, options.temperature, options.chunk_tokens, control, workspace);
  const std::vector<int64_t>& rows = evaluator.loss_rows();
  pass.check_ids(rows);
  const auto chunk = static_cast<size_t>(pass.chunk());
  const auto for_chunks = [&](Rows all, auto body) {
    for (size_t begin = 0; begin < all.size(); begin += chunk)
      body(all.subspan(begin, std::min(chunk, all.size() - begin)));
  };

  size_t begin = 0;
  std::vector<int64_t> active, active_rows;
  for (const size_t end : segment_ends(rows, evaluator.response_of_token(), evaluator.unit(), chunk)) {
    const Rows segment(rows.data() + begin, end - begin);
    begin = end;
    const bool keep = wants_gradients && segment.size() <= chunk;
    for_chunks(segment, [&](Rows part) { pass.forward(part, keep); });
    const int64_t first = segment.front(), past = segment.back() + 1;
    evaluator.evaluate(first, past, pass.log_probs().data() + first, pass.entropies().data() + first);
    if (!wants_gradients) continue;

    const TokenLossResult<F>& terms = evaluator.result();
    active.clear();
    active_rows.clear();
    for (size_t j = 0; j < segment.size(); ++j) {
      const int64_t t = segment[j];
      if (terms.grad_log_prob[t] == F(0) && (terms.grad_entropy.empty() || terms.grad_entropy[t] == F(0))) continue;
      active.push_back(t);
      active_rows.push_back(static_cast<int64_t>(j));
    }
    if (keep) {
      pass.backward(active, active_rows, terms.grad_log_prob, terms.grad_entropy, grad_hidden_TH, grad_head_VH);
      continue;
    }
    for (size_t j = 0; j < active.size(); ++j) active_rows[j] = static_cast<int64_t>(j);
    for_chunks(active, [&](Rows part) {
      pass.forward(part, true);
      pass.backward(part, Rows(active_rows).first(part.size()), terms.grad_log_prob, terms.grad_entropy, grad_hidden_TH,
                    grad_head_VH);
    });
  }

  TokenLossResult<F> terms = evaluator.take_result();
  FusedLossResult result;
  result.loss = terms.loss;
  result.log_probs.assign(pass.log_probs().begin(), pass.log_probs().end());
  result.entropies.assign(pass.entropies().begin(), pass.entropies().end());
  result.classes = std::move(terms.classes);
  result.thresholds = std::move(terms.thresholds);
  result.sums = terms.sums;
  result.backward_rows = pass.backward_rows();
  return result;
}

template <class Pass>
TokenScores score_tokens_impl(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                              double temperature, const JobControl* control, int64_t chunk_tokens,
                              LossWorkspace& workspace) {
  Pass pass(hidden_TH, head_VH, ids_T, temperature, chunk_tokens, control, workspace);
  std::vector<int64_t> rows(ids_T.size());
  for (size_t t = 0; t < rows.size(); ++t) rows[t] = static_cast<int64_t>(t);
  pass.check_ids(rows);
  const auto chunk = static_cast<size_t>(pass.chunk());
  for (size_t begin = 0; begin < rows.size(); begin += chunk) {
    pass.forward(Rows(rows).subspan(begin, std::min(chunk, rows.size() - begin)), false);
  }
  return {{pass.log_probs().begin(), pass.log_probs().end()}, {pass.entropies().begin(), pass.entropies().end()}};
}

template <class Body>
auto with_pass(at::ScalarType dtype, Body body) {
  if (dtype == at::kDouble) return body(std::type_identity<LogitsPass<double>>{});
  if (dtype == at::kBFloat16 && TilePass::available()) return body(std::type_identity<TilePass>{});
  return body(std::type_identity<LogitsPass<float>>{});
}

// An undefined tensor is refused by the checks of any pass.
template <class Body>
auto with_pass(const at::Tensor& hidden_TH, Body body) {
  return with_pass(hidden_TH.defined() ? hidden_TH.scalar_type() : at::kFloat, body);
}

}  // namespace

int64_t loss_workspace_bytes(int64_t vocabulary, int64_t hidden, at::ScalarType dtype, int64_t rows, int threads,
                             bool gradients) {
  return with_pass(dtype, [&]<class Pass>(std::type_identity<Pass>) {
    return Pass::workspace_bytes(vocabulary, hidden, dtype, rows, threads, gradients);
  });
}

FusedLossResult fused_loss(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                           const LossOptions& options, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH,
                           const JobControl* control, LossWorkspace* workspace) {
  const c10::NoGradGuard no_grad;
  const ProfileSpan span("loss");
  LossWorkspace own;
  LossWorkspace& buffers = workspace ? *workspace : own;
  const auto with = [&]<class Pass>(std::type_identity<Pass>) {
    return fused_loss_impl<Pass>(hidden_TH, head_VH, batch, options, grad_hidden_TH, grad_head_VH, control, buffers);
  };
  return with_pass(hidden_TH, with);
}

TokenScores score_tokens(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                         double temperature, const JobControl* control, int64_t chunk_tokens,
                         LossWorkspace* workspace) {
  const c10::NoGradGuard no_grad;
  const ProfileSpan span("log-probs");
  require(temperature > 0.0 && std::isfinite(temperature), kConfig, "temperature is " + std::to_string(temperature) +
          "; scoring needs one above 0.");
  require(chunk_tokens >= 0, kConfig, "chunk_tokens is " + std::to_string(chunk_tokens) + ", below 0.");
  check_matrices(hidden_TH, head_VH, ids_T.size(), ids_T.size());
  LossWorkspace own;
  LossWorkspace& buffers = workspace ? *workspace : own;
  const auto with = [&]<class Pass>(std::type_identity<Pass>) {
    return score_tokens_impl<Pass>(hidden_TH, head_VH, ids_T, temperature, control, chunk_tokens, buffers);
  };
  return with_pass(hidden_TH, with);
}

}  // namespace archer
