// One call's rows on the device, chunk by chunk: logits, statistics or gradient rows, compaction, products
// (head_loss.cpp has the flows). Legend: rows = tokens in processing order; the buffer holds a chunk of their logits,
// [chunk, stride], and after a gradient pass their gradients in bfloat16 in the same place.
#pragma once
#include <span>
#include <vector>

#include "core/job_control.h"
#include "kernels/head_device.h"
#include "head/head_loss.h"

namespace archer {

using Tokens = std::span<const int32_t>;

// Per-row arrays on the device: those of the whole call, in processing order, and those of one chunk.
struct RowArrays {
  int32_t* tokens;
  int32_t* ids;
  RowStats* stats;
  uint8_t* flags;
  float *old_log_probs, *ref_log_probs, *advantages, *pg_weights, *kl_weights;
  uint8_t* classes;
  double* thresholds;

  int32_t *chunk_rows, *move_to, *move_from, *slot_tokens;
  float *grad_log_prob, *grad_entropy;

  template <typename Parts>
  void lay_out(Parts& parts, int64_t rows, int64_t chunk) {
    tokens = parts.template take<int32_t>(rows);
    ids = parts.template take<int32_t>(rows);
    stats = parts.template take<RowStats>(rows);
    flags = parts.template take<uint8_t>(rows);
    for (float** array : {&old_log_probs, &ref_log_probs, &advantages, &pg_weights, &kl_weights})
      *array = parts.template take<float>(rows);
    classes = parts.template take<uint8_t>(rows);
    thresholds = parts.template take<double>(rows);
    for (int32_t** array : {&chunk_rows, &move_to, &move_from, &slot_tokens})
      *array = parts.template take<int32_t>(chunk);
    for (float** array : {&grad_log_prob, &grad_entropy}) *array = parts.template take<float>(chunk);
  }
};

class HeadRun {
 public:
  HeadRun(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature, std::vector<int32_t> tokens,
          const HeadLossOptions& options, HeadWorkspace& workspace, const JobControl* control);

  HeadDevice& device() { return device_; }
  int64_t chunk() const { return chunk_; }
  int64_t num_rows() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t backward_rows() const { return backward_rows_; }
  const RowArrays& arrays() const { return arrays_; }
  Tokens tokens() const { return tokens_; }

  template <typename T>
  void upload(T* to, const std::vector<T>& from) {
    device_.upload(to, from.data(), from.size() * sizeof(T));
  }

  // Logits of rows begin .. begin + count - 1, at most chunk() of them, into the buffer.
  void logits(int64_t begin, int64_t count);
  // Parameters for the rows in the buffer.
  HeadRowsParams params() const;
  void statistics();
  // Statistics of rows begin .. end - 1 to the host: queued, and marked.
  void queue_fetch(int64_t begin, int64_t end);
  // Waits for that mark; throws ARCHER_E_NUMERIC where a row has a fault.
  void finish_fetch(int64_t begin, int64_t end);
  void fetch(int64_t begin, int64_t end) {
    queue_fetch(begin, end);
    finish_fetch(begin, end);
  }
  // The gradient pass and the products for the buffer's rows `active` (ascending); coefficients per row of the buffer.
  void gradient(const std::vector<int32_t>& active, const std::vector<float>& grad_log_prob,
                const std::vector<float>& grad_entropy);
  // The rows of the buffer that the device has found to have a gradient; waits.
  std::vector<int32_t> active_rows();
  // The backward products over all rows of the buffer, whose gradient rows have been written.
  void multiply_all();
  // Moves the last active rows of the buffer into the gaps before them, so that the products run over these alone. The
  // order of the rows in the products' sums depends on nothing but which rows are active.
  void close_gaps_and_multiply(const std::vector<int32_t>& active);

  // [num_rows()], as far as they have been fetched; in memory of the workspace.
  const RowStats* stats() const { return stats_; }

 private:
  int64_t gradient_stride() const { return logits_type_ == LogitsType::float32 ? 2 * stride_ : stride_; }
  int64_t most_rows() const;
  const uint16_t* hidden_rows(Tokens tokens, const int32_t* device_tokens);
  void multiply(const uint16_t* hidden, Tokens tokens, const int32_t* device_tokens);

  const DeviceHead& head_;
  HeadDevice& device_;
  HeadWorkspace& workspace_;
  const JobControl* control_;
  std::vector<int32_t> tokens_;
  float temperature_;
  LogitsType logits_type_;
  int64_t stride_, chunk_ = 0, begin_ = 0, count_ = 0, backward_rows_ = 0;
  RowStats* stats_ = nullptr;
  uint8_t* flags_ = nullptr;
  void* logits_ = nullptr;
  const uint16_t* hidden_ = nullptr;  // of the rows in the buffer
  RowArrays arrays_{};
};

}  // namespace archer
