// The output head through whole rows of logits: a chunk's logits [R, V] from one product, one pass that turns them into
// exponentials, two more products. Any dtype, any processor. F is float for float32 and bfloat16 inputs, double for float64.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mul.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/head_gemm.h"
#include "kernels/softmax_rows.h"
#include "loss/head_pass.h"

namespace archer {

inline bool is_range(Rows rows) { return rows.empty() || rows.back() - rows.front() + 1 == static_cast<int64_t>(rows.size()); }

inline at::Tensor index_tensor(Rows rows) {
  return at::from_blob(const_cast<int64_t*>(rows.data()), {static_cast<int64_t>(rows.size())},
                       at::TensorOptions().dtype(at::kLong));
}

// Rows of a matrix (ascending): a view where they lie together, else a copy.
inline at::Tensor take_rows(const at::Tensor& matrix, Rows rows) {
  if (is_range(rows)) return matrix.narrow(0, rows.front(), static_cast<int64_t>(rows.size()));
  return matrix.index_select(0, index_tensor(rows));
}

template <typename F>
class LogitsPass : public HeadPass<F> {
 public:
  LogitsPass(const at::Tensor& hidden_TH, const at::Tensor& head_VH, std::span<const int32_t> ids_T, double temperature,
             int64_t chunk_tokens, const JobControl* control, LossWorkspace& workspace)
      : HeadPass<F>(hidden_TH, head_VH, ids_T, control, workspace), temperature_(static_cast<F>(temperature)),
        chunk_(chunk_tokens > 0 ? chunk_tokens : automatic_chunk(head_VH.size(0))), stats_(ids_T.size()) {}

  int64_t chunk() const { return chunk_; }

  static int64_t workspace_bytes(int64_t vocabulary, int64_t hidden, at::ScalarType dtype, int64_t rows, int, bool gradients) {
    const int64_t count = std::min(rows, automatic_chunk(vocabulary)), element = c10::elementSize(dtype);
    const int64_t logits = count * vocabulary * static_cast<int64_t>(sizeof(F));
    if (!gradients) return logits;
    const int64_t exponentials = dtype == at::kBFloat16 ? count * vocabulary * element : 0;
    return logits + exponentials + count * hidden * static_cast<int64_t>(sizeof(F)) + count * hidden * element;  // gradient; scaled rows
  }

  // Pass 1: (logp, H) of at most chunk() tokens. keep: the exponentials of their logits stay in the buffer, for backward().
  void forward(Rows rows, bool keep) {
    this->check_control();
    const auto count = static_cast<int64_t>(rows.size());
    at::Tensor logits_RV = matrix(workspace_.logits, count, vocabulary_, c10::CppTypeToScalarType<F>::value);
    head_logits(take_rows(hidden_TH_, rows), head_VH_, logits_RV);
    exponentials_RV_ = keep && bf16() ? matrix(workspace_.exponentials, count, vocabulary_, at::kBFloat16) : logits_RV;
    const F* logits = logits_RV.template const_data_ptr<F>();
    with_exponentials([&](auto* exponentials) {
      at::parallel_for(0, count, grain(), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          const auto t = static_cast<size_t>(rows[static_cast<size_t>(r)]);
          stats_[t] = softmax_row(logits + r * vocabulary_, vocabulary_, ids_T_[t], temperature_,
                                  keep ? exponentials + r * vocabulary_ : nullptr);
          log_probs_[t] = stats_[t].log_prob;
          entropies_[t] = stats_[t].entropy;
        }
      });
    });
    this->require_finite(rows);
  }

  // Pass 2 for the tokens `active`, which are rows `active_rows` of the buffer (ascending). With e the exponentials and
  // c_r = -g_r / (T S_r): grad_hidden = diag(c) e head, grad_head += eᵀ (diag(c) hidden), e of the sampled id less S_r.
  void backward(Rows active, Rows active_rows, const std::vector<F>& grad_log_prob, const std::vector<F>& grad_entropy,
                at::Tensor& grad_hidden_TH, at::Tensor& grad_head_VH) {
    if (active.empty()) return;
    this->check_control();
    const auto count = static_cast<int64_t>(active.size());
    const bool bonus = !grad_entropy.empty();
    at::Tensor coefficients_R1 = at::empty({count, 1}, at::TensorOptions().dtype(c10::CppTypeToScalarType<F>::value));
    F* coefficients = coefficients_R1.template data_ptr<F>();
    with_exponentials([&](auto* exponentials) {
      at::parallel_for(0, count, bonus ? grain() : count, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const auto t = static_cast<size_t>(active[static_cast<size_t>(j)]);
          auto* row = exponentials + active_rows[static_cast<size_t>(j)] * vocabulary_;
          const SoftmaxRow<F>& stats = stats_[t];
          const double g = grad_log_prob[t], scale = 1.0 / (static_cast<double>(temperature_) * stats.sum);
          double sampled = stats.sampled - stats.sum;
          double coefficient = -g * scale;
          if (bonus) {
            const double b = -static_cast<double>(grad_entropy[t]), entropy = stats.entropy;
            entropy_row(row, vocabulary_, static_cast<F>(b * (entropy - std::log(stats.sum)) - g), static_cast<F>(b));
            sampled = stats.sampled * (b * (static_cast<double>(stats.log_prob) + entropy) - g) + g * stats.sum;
            coefficient = scale;
          }
          // From unrounded values: near p = 1 the two parts nearly cancel.
          put(row[ids_T_[t]], sampled);
          coefficients[j] = static_cast<F>(coefficient);
        }
      });
      if (active_rows.back() != count - 1) close_gaps(exponentials, active_rows);
    });

    const at::Tensor e_RV = exponentials_RV_.narrow(0, 0, count), hidden_RH = take_rows(hidden_TH_, active);
    if (grad_head_VH.defined()) {
      head_grad_weight(e_RV, at::mul(hidden_RH, coefficients_R1).to(hidden_RH.scalar_type()), grad_head_VH);
    }
    if (is_range(active) && grad_hidden_TH.scalar_type() != at::kBFloat16) {
      at::Tensor target = grad_hidden_TH.narrow(0, active.front(), count);
      head_grad_hidden(e_RV, head_VH_, target);
      target.mul_(coefficients_R1);
    } else {
      at::Tensor grad_RH =
          matrix(workspace_.grad_hidden, count, hidden_TH_.size(1), c10::CppTypeToScalarType<F>::value);
      head_grad_hidden(e_RV, head_VH_, grad_RH);
      grad_hidden_TH.index_copy_(0, index_tensor(active), grad_RH.mul_(coefficients_R1).to(grad_hidden_TH.scalar_type()));
    }
    backward_rows_ += count;
  }

 private:
  bool bf16() const { return hidden_TH_.scalar_type() == at::kBFloat16; }

  template <typename Body>
  void with_exponentials(Body body) {
    if constexpr (std::is_same_v<F, float>) {
      if (bf16()) return body(static_cast<uint16_t*>(exponentials_RV_.data_ptr()));
    }
    body(exponentials_RV_.template data_ptr<F>());
  }

  static void put(F& element, double value) { element = static_cast<F>(value); }
  static void put(uint16_t& element, double value) { element = c10::BFloat16(static_cast<float>(value)).x; }

  // Moves the rows `active_rows` to the front. Threads share out the columns: rows must move in order.
  template <typename E>
  void close_gaps(E* matrix, Rows active_rows) {
    at::parallel_for(0, vocabulary_, 4096, [&](int64_t begin, int64_t end) {
      for (size_t j = 0; j < active_rows.size(); ++j) {
        if (active_rows[j] == static_cast<int64_t>(j)) continue;
        std::memcpy(matrix + static_cast<int64_t>(j) * vocabulary_ + begin,
                    matrix + active_rows[j] * vocabulary_ + begin, static_cast<size_t>(end - begin) * sizeof(E));
      }
    });
  }

  static int64_t automatic_chunk(int64_t vocabulary) {
    constexpr int64_t kChunkBytes = int64_t{100} << 20, kFewestRows = 256, kMostRows = 1024;
    return std::clamp<int64_t>(kChunkBytes / (vocabulary * static_cast<int64_t>(sizeof(F))), kFewestRows, kMostRows);
  }

  static at::Tensor matrix(at::Tensor& buffer, int64_t rows, int64_t columns, at::ScalarType dtype) {
    return buffer_of(buffer, rows * columns, dtype).view({rows, columns});
  }

  // Less than 2^15 logits are not worth a second thread.
  int64_t grain() const { return std::max<int64_t>(1, (int64_t{1} << 15) / vocabulary_); }

  using HeadPass<F>::hidden_TH_, HeadPass<F>::head_VH_, HeadPass<F>::ids_T_, HeadPass<F>::vocabulary_,
      HeadPass<F>::workspace_, HeadPass<F>::log_probs_, HeadPass<F>::entropies_, HeadPass<F>::backward_rows_;

  F temperature_;
  int64_t chunk_;
  at::Tensor exponentials_RV_;
  std::vector<SoftmaxRow<F>> stats_;
};

}  // namespace archer
