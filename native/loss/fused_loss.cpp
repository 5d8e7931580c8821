// Chunks, two passes, row compaction; see fused_loss.h.
#include "loss/fused_loss.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/error.h"
#include "kernels/softmax_rows.h"
#include "core/head_gemm.h"

namespace archer {
namespace {

constexpr int64_t kChunkBytes = int64_t{64} << 20;
constexpr int64_t kMaxAutomaticRows = 512;
constexpr int64_t kLogitsPerThread = 1 << 15;  // less than this is not worth a second thread

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

int64_t chunk_rows(int64_t chunk_tokens, int64_t vocabulary, int64_t element_bytes) {
  if (chunk_tokens > 0) return chunk_tokens;
  return std::clamp<int64_t>(kChunkBytes / (vocabulary * element_bytes), 1, kMaxAutomaticRows);
}

// The first `rows` rows of a buffer that grows when it must.
at::Tensor buffer_rows(at::Tensor& buffer, int64_t rows, int64_t columns, at::ScalarType dtype) {
  if (!buffer.defined() || buffer.scalar_type() != dtype || buffer.numel() < rows * columns) {
    buffer = at::Tensor();  // free first: both would be alive otherwise
    buffer = at::empty({rows * columns}, at::TensorOptions().dtype(dtype));
  }
  return buffer.narrow(0, 0, rows * columns).view({rows, columns});
}

using Rows = std::span<const int64_t>;

bool is_range(Rows rows) { return rows.empty() || rows.back() - rows.front() + 1 == static_cast<int64_t>(rows.size()); }

at::Tensor index_tensor(Rows rows) {
  return at::from_blob(const_cast<int64_t*>(rows.data()), {static_cast<int64_t>(rows.size())},
                       at::TensorOptions().dtype(at::kLong));
}

// Rows of a matrix (ascending): a view where they lie together, else a copy.
at::Tensor take_rows(const at::Tensor& matrix, Rows rows) {
  if (is_range(rows)) return matrix.narrow(0, rows.front(), static_cast<int64_t>(rows.size()));
  return matrix.index_select(0, index_tensor(rows));
}

// One call of fused_loss or score_tokens. F is float for float32 and bfloat16 inputs, double for float64.
template <typename F>
class HeadPass {
 public:
  HeadPass(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T, double temperature,
           int64_t chunk_tokens, const JobControl* control, LossWorkspace& workspace)
      : hidden_TH_(hidden_TH), head_VH_(head_VH), ids_T_(ids_T), temperature_(static_cast<F>(temperature)),
        vocabulary_(head_VH.size(0)), chunk_(chunk_rows(chunk_tokens, vocabulary_, sizeof(F))), control_(control),
        workspace_(workspace), stats_(ids_T.size()), log_probs_(ids_T.size(), F(0)), entropies_(ids_T.size(), F(0)) {}

  int64_t chunk() const { return chunk_; }
  const std::vector<F>& log_probs() const { return log_probs_; }
  const std::vector<F>& entropies() const { return entropies_; }
  int64_t backward_rows() const { return backward_rows_; }

  void check_ids(Rows rows) const {
    for (const int64_t t : rows) {
      if (ids_T_[t] < 0 || ids_T_[t] >= vocabulary_) {
        throw ArcherError(kShape, "ids[" + std::to_string(t) + "] is " + std::to_string(ids_T_[t]) +
                          ", outside the vocabulary of " + std::to_string(vocabulary_) + ".");
      }
    }
  }

  // Pass 1: logits of at most chunk() rows into the buffer, then (logp, H) of each.
  void forward(Rows rows) {
    compute_logits(rows);
    const F* logits = logits_RV_.template const_data_ptr<F>();
    at::parallel_for(0, static_cast<int64_t>(rows.size()), grain(), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const int64_t t = rows[j];
        stats_[t] = softmax_row(logits + j * vocabulary_, vocabulary_, ids_T_[t], temperature_);
        log_probs_[t] = stats_[t].log_prob;
        entropies_[t] = stats_[t].entropy;
      }
    });
    for (const int64_t t : rows) {
      if (std::isfinite(log_probs_[t]) && std::isfinite(entropies_[t])) continue;
      throw ArcherError(
          kNumeric, std::isnan(log_probs_[t])
                        ? "The logits of token " + std::to_string(t) +
                              " hold NaN or +inf; the hidden state or the head is not finite."
                        : "Token " + std::to_string(t) + " (id " + std::to_string(ids_T_[t]) + ") has probability 0.");
    }
  }

  // Logits of `rows` again, for a pass 2 that could not keep them.
  void compute_logits(Rows rows) {
    if (control_) control_->check();
    logits_RV_ = buffer_rows(workspace_.logits, static_cast<int64_t>(rows.size()), vocabulary_,
                             c10::CppTypeToScalarType<F>::value);
    head_logits(take_rows(hidden_TH_, rows), head_VH_, logits_RV_);
  }

  // Pass 2 for the tokens `active`, whose logits are the buffer's rows `active_rows` (ascending).
  void backward(Rows active, Rows active_rows, const std::vector<F>& grad_log_prob, const std::vector<F>& grad_entropy,
                at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH) {
    if (active.empty()) return;
    if (control_) control_->check();
    const auto num_rows = static_cast<int64_t>(active.size());
    const bool bf16 = hidden_TH_.scalar_type() == at::kBFloat16;
    at::Tensor dlogits_RV = bf16 ? buffer_rows(workspace_.dlogits, num_rows, vocabulary_, at::kBFloat16)
                                 : logits_RV_.narrow(0, 0, num_rows);
    F* logits = logits_RV_.template data_ptr<F>();
    at::parallel_for(0, num_rows, grain(), [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        const int64_t t = active[j];
        const F entropy_weight = grad_entropy.empty() ? F(0) : -grad_entropy[t];
        F* row = logits + active_rows[j] * vocabulary_;
        if constexpr (std::is_same_v<F, float>) {
          if (bf16) {
            softmax_row_backward_bf16(row, vocabulary_, ids_T_[t], temperature_, stats_[t], grad_log_prob[t],
                                      entropy_weight, static_cast<uint16_t*>(dlogits_RV.data_ptr()) + j * vocabulary_);
            continue;
          }
        }
        softmax_row_backward(row, vocabulary_, ids_T_[t], temperature_, stats_[t], grad_log_prob[t], entropy_weight,
                             row);
      }
    });
    if (!bf16 && active_rows.back() != num_rows - 1) close_gaps(logits, active_rows);

    const at::Tensor hidden_RH = take_rows(hidden_TH_, active);
    head_grad_weight(dlogits_RV, hidden_RH, grad_head_VH);
    if (is_range(active) && grad_hidden_TH.scalar_type() != at::kBFloat16) {
      at::Tensor target = grad_hidden_TH.narrow(0, active.front(), num_rows);
      head_grad_hidden(dlogits_RV, head_VH_, target);
    } else {
      at::Tensor grad_RH =
          buffer_rows(workspace_.grad_hidden, num_rows, hidden_TH_.size(1), c10::CppTypeToScalarType<F>::value);
      head_grad_hidden(dlogits_RV, head_VH_, grad_RH);
      grad_hidden_TH.index_copy_(0, index_tensor(active), grad_RH.to(grad_hidden_TH.scalar_type()));
    }
    backward_rows_ += num_rows;
  }

 private:
  int64_t grain() const { return std::max<int64_t>(1, kLogitsPerThread / vocabulary_); }

  // Moves the rows `active_rows` to the front. Threads share out the columns: rows must move in order.
  void close_gaps(F* matrix, Rows active_rows) {
    at::parallel_for(0, vocabulary_, 4096, [&](int64_t begin, int64_t end) {
      for (size_t j = 0; j < active_rows.size(); ++j) {
        if (active_rows[j] == static_cast<int64_t>(j)) continue;
        std::memcpy(matrix + static_cast<int64_t>(j) * vocabulary_ + begin,
                    matrix + active_rows[j] * vocabulary_ + begin, static_cast<size_t>(end - begin) * sizeof(F));
      }
    });
  }

  const at::Tensor& hidden_TH_;
  const at::Tensor& head_VH_;
  std::span<const int32_t> ids_T_;
  F temperature_;
  int64_t vocabulary_, chunk_;
  const JobControl* control_;
  LossWorkspace& workspace_;
  at::Tensor logits_RV_;
  std::vector<SoftmaxRow<F>> stats_;
  std::vector<F> log_probs_, entropies_;
  int64_t backward_rows_ = 0;
};

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

template <typename F>
FusedLossResult fused_loss_impl(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                                const LossOptions& options, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH,
                                const JobControl* control, LossWorkspace& workspace) {
  TokenLossEvaluator<F> evaluator(batch, options);
  check_matrices(hidden_TH, head_VH, batch.loss_mask.size(), batch.ids.size());
  const bool wants_gradients = grad_head_VH.defined();
  if (wants_gradients) {
    const auto dtype = hidden_TH.scalar_type();
    check_gradient("grad_head", grad_head_VH, head_VH,
                   grad_head_VH.scalar_type() == c10::CppTypeToScalarType<F>::value);
    if (grad_hidden_TH.defined()) {
      const auto given = grad_hidden_TH.scalar_type();
      check_gradient("grad_hidden", grad_hidden_TH, hidden_TH,
                     given == dtype || (given == at::kFloat && dtype == at::kBFloat16));
      grad_hidden_TH.zero_();
    } else {
      grad_hidden_TH = at::zeros_like(hidden_TH);
    }
  }

  HeadPass<F> pass(hidden_TH, head_VH, batch.ids, options.temperature, options.chunk_tokens, control, workspace);
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
    for_chunks(segment, [&](Rows part) { pass.forward(part); });
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
    if (segment.size() <= chunk) {
      pass.backward(active, active_rows, terms.grad_log_prob, terms.grad_entropy, grad_hidden_TH, grad_head_VH);
      continue;
    }
    for (size_t j = 0; j < active.size(); ++j) active_rows[j] = static_cast<int64_t>(j);
    for_chunks(active, [&](Rows part) {
      pass.compute_logits(part);
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

template <typename F>
TokenScores score_tokens_impl(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                              double temperature, const JobControl* control, int64_t chunk_tokens,
                              LossWorkspace& workspace) {
  HeadPass<F> pass(hidden_TH, head_VH, ids_T, temperature, chunk_tokens, control, workspace);
  std::vector<int64_t> rows(ids_T.size());
  for (size_t t = 0; t < rows.size(); ++t) rows[t] = static_cast<int64_t>(t);
  pass.check_ids(rows);
  const auto chunk = static_cast<size_t>(pass.chunk());
  for (size_t begin = 0; begin < rows.size(); begin += chunk) {
    pass.forward(Rows(rows).subspan(begin, std::min(chunk, rows.size() - begin)));
  }
  return {{pass.log_probs().begin(), pass.log_probs().end()}, {pass.entropies().begin(), pass.entropies().end()}};
}

}  // namespace

FusedLossResult fused_loss(const at::Tensor& hidden_TH, const at::Tensor& head_VH, const LossBatch& batch,
                           const LossOptions& options, at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH,
                           const JobControl* control, LossWorkspace* workspace) {
  const c10::NoGradGuard no_grad;
  LossWorkspace own;
  LossWorkspace& buffers = workspace ? *workspace : own;
  return hidden_TH.defined() && hidden_TH.scalar_type() == at::kDouble
             ? fused_loss_impl<double>(hidden_TH, head_VH, batch, options, grad_hidden_TH, grad_head_VH, control,
                                       buffers)
             : fused_loss_impl<float>(hidden_TH, head_VH, batch, options, grad_hidden_TH, grad_head_VH, control,
                                      buffers);
}

TokenScores score_tokens(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T,
                         double temperature, const JobControl* control, int64_t chunk_tokens,
                         LossWorkspace* workspace) {
  const c10::NoGradGuard no_grad;
  require(temperature > 0.0 && std::isfinite(temperature), kConfig, "temperature is " + std::to_string(temperature) +
          "; scoring needs one above 0.");
  require(chunk_tokens >= 0, kConfig, "chunk_tokens is " + std::to_string(chunk_tokens) + ", below 0.");
  check_matrices(hidden_TH, head_VH, ids_T.size(), ids_T.size());
  LossWorkspace own;
  LossWorkspace& buffers = workspace ? *workspace : own;
  return hidden_TH.scalar_type() == at::kDouble
             ? score_tokens_impl<double>(hidden_TH, head_VH, ids_T, temperature, control, chunk_tokens, buffers)
             : score_tokens_impl<float>(hidden_TH, head_VH, ids_T, temperature, control, chunk_tokens, buffers);
}

}  // namespace archer
