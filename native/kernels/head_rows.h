// The row kernels of the head on a GPU: rows of logits -> log-probabilities, entropies, loss terms and, in place, the
// gradient with respect to the logits in bfloat16 (archer.md 5). Every entry point takes device pointers and queues its
// work; nothing waits. Legend: R rows of the chunk, V vocabulary.
//   statistics  logits -> stats, flags
//   fused       logits -> stats, flags, terms, and the gradient row of every row with a coefficient that is not 0
//   gradient    logits, stats, grad_log_prob, grad_entropy -> the gradient rows
// The gradient row of v elements of bfloat16 begins where the row of logits began: for float32 logits it covers the
// first half of the row, so its leading dimension is 2 stride; for bfloat16 logits it is stride.
// Plain C++17 without torch or Node: device code includes it.
#pragma once
#include <cstddef>
#include <cstdint>

#include "loss/token_math.h"

namespace archer {

enum class HeadRowsMode { statistics, fused, gradient };
enum class LogitsType { float32, bfloat16 };

struct alignas(16) RowStats {
  float max;       // of the undivided logits
  float log_sum;   // ln sum_v exp((u_v - max) / T); logsumexp(z) = max / T + log_sum
  float log_prob;
  float entropy;   // nats
};

struct alignas(16) RowTerms {  // without their weights; 0 for a row with a fault
  float ratio, pg_loss, kl;
  float grad_log_prob;         // dL/dlogp, weights and KL included
};

enum RowFlag : uint8_t {
  kRowNotFinite = 1,        // NaN or +inf among the logits, or nothing but -inf: stats are NaN
  kRowZeroProbability = 2,  // the sampled id's logit is -inf
  kRowBadId = 4,            // the id lies outside the vocabulary
  kRowActive = 8,           // the row has a gradient; in mode fused all other rows have none
  kRowReasoning = 16,
  kRowClipped = 32,
  kRowDualClipped = 64,
};
constexpr uint8_t kRowFaults = kRowNotFinite | kRowZeroProbability | kRowBadId;

// Arrays with one entry per row are indexed by the row's number in the chunk.
struct HeadRowsParams {
  void* logits = nullptr;             // [R, stride], LogitsType; any alignment of whole elements, 16 bytes are fastest
  LogitsType logits_type = LogitsType::float32;
  int64_t stride = 0;                 // elements from row to row, >= V
  int32_t vocabulary = 0;
  int32_t num_rows = 0;               // rows to do
  const int32_t* rows = nullptr;      // [num_rows] which ones; null: 0 .. num_rows - 1
  const int32_t* ids = nullptr;       // [R]
  float temperature = 1.0f;
  bool zero_inactive = false;         // write zeros for rows without a gradient (for products over the whole chunk)

  // fused
  const float* old_log_probs = nullptr;
  const float* ref_log_probs = nullptr;   // null: no KL
  const float* advantages = nullptr;
  const float* pg_weights = nullptr;
  const float* kl_weights = nullptr;      // without beta; null: pg_weights
  const uint8_t* classes = nullptr;       // 0 knowledge, 1 reasoning
  const double* thresholds = nullptr;     // instead of classes: reasoning iff H > threshold (or >=)
  bool tie_is_reasoning = true;
  ClipEdges<float> edges[2] = {};
  float kl_coef[2] = {0.0f, 0.0f};        // beta
  KlType kl_type = KlType::k3;
  float entropy_coeff = 0.0f;             // alpha

  // gradient
  const float* grad_log_prob = nullptr;
  const float* grad_entropy = nullptr;    // dL/dH; null: 0

  RowStats* stats = nullptr;              // out; in for mode gradient
  RowTerms* terms = nullptr;              // out, or null
  uint8_t* flags = nullptr;               // out (mode gradient leaves them)
};

// How a launch is cut. cluster 0: the streaming kernel, one block per row, which reads the row twice in mode fused.
// cluster 1..8: blocks that hold one row in their shared memory together and read it once (mode fused alone).
struct HeadRowsPlan {
  int cluster = 0;
  size_t shared_bytes = 0;  // per block
};

constexpr int kHeadRowsThreads = 512;
constexpr int kMaxCluster = 8;
constexpr size_t kSharedHeaderBytes = 1024;

// Shared memory that one block of a cluster needs for its share of a row.
constexpr size_t resident_bytes(int64_t vocabulary, int cluster, LogitsType type) {
  const int64_t per_vector = type == LogitsType::float32 ? 4 : 8;
  const int64_t vectors = (vocabulary + per_vector - 1) / per_vector;
  return kSharedHeaderBytes + static_cast<size_t>((vectors + cluster - 1) / cluster) * 16;
}

// The smallest cluster whose blocks hold a row; `max_cluster` 1 where the device knows no clusters.
constexpr HeadRowsPlan plan_head_rows(HeadRowsMode mode, int64_t vocabulary, LogitsType type, size_t max_shared_bytes,
                                      int max_cluster) {
  if (mode == HeadRowsMode::fused) {
    for (int cluster = 1; cluster <= max_cluster && cluster <= kMaxCluster; cluster *= 2) {
      const size_t bytes = resident_bytes(vocabulary, cluster, type);
      if (bytes <= max_shared_bytes) return {cluster, bytes};
    }
  }
  return {0, kSharedHeaderBytes};
}

// Copies whole rows: to[to_rows[j]] = from[from_rows[j]], j < num_rows; null index: j itself. Rows that are read and
// rows that are written must not overlap. Pitches and row_bytes are multiples of 2.
struct CopyRowsParams {
  void* to = nullptr;
  const void* from = nullptr;
  int64_t to_pitch = 0, from_pitch = 0;  // bytes from row to row
  const int32_t* to_rows = nullptr;
  const int32_t* from_rows = nullptr;
  int64_t row_bytes = 0;
  int32_t num_rows = 0;
};

}  // namespace archer
