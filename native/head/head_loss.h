// fused_loss (fused_loss.h) for hidden states and head on a GPU: the same batch, options and results, device pointers
// instead of tensors, bfloat16 inputs. Logits exist for one chunk of rows at a time; the device's row kernels write the
// gradient over them; all memory is in a workspace that is allocated once.
//   - Classes known beforehand (entropies of the sampling policy), or thresholds given and a shared KL denominator: one
//     pass, three products, nothing waits for the host until the end. Rows that are known to have no gradient (A = 0
//     without KL and entropy bonus) are reduced to their statistics and take part in no backward product; with
//     compact_clipped so do the rows whose gradient the clip removes, for one wait of the host per chunk.
//   - Classes that need the current policy's entropies: statistics of whole responses, the decision on the host
//     (TokenLossEvaluator), then the gradient pass on the logits that are still there; responses longer than a chunk
//     have their logits computed twice. A caller with another rule does the same with the parts: score_tokens_on, a
//     decision, and backward_on with dL/dlogp and dL/dH per token.
// Legend: T response tokens of the micro-batch, H hidden size, V vocabulary; row t of hidden_TH predicts ids[t].
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/job_control.h"
#include "kernels/head_device.h"
#include "loss/token_loss.h"

namespace archer {

// Device pointers; matrices are contiguous.
struct DeviceHead {
  const uint16_t* hidden_TH = nullptr;   // bfloat16
  const uint16_t* head_VH = nullptr;     // bfloat16
  int64_t num_tokens = 0, hidden_size = 0, vocabulary = 0;
  void* grad_hidden_TH = nullptr;        // overwritten; bfloat16, or float32 where grad_hidden_is_float
  bool grad_hidden_is_float = false;
  float* grad_head_VH = nullptr;         // the gradient is added to it; null: no gradients at all
};

struct HeadLossOptions {
  int64_t chunk_tokens = 0;              // rows of logits held at once; 0: 2,048 to 4,096, fewer where memory is short
  LogitsType logits_type = LogitsType::float32;  // bfloat16 halves memory and traffic and rounds the log-probabilities
  bool compact_clipped = false;          // see above
};

struct HeadLossResult {
  double loss = 0;
  std::vector<double> log_probs;    // [T], 0 for tokens not in the loss
  std::vector<double> entropies;    // [T], 0 for tokens not in the loss
  std::vector<uint8_t> classes;     // [T] kKnowledge, kReasoning or kNotInLoss
  std::vector<double> thresholds;   // [N], NaN for a response without tokens in the loss
  LossSums sums;
  int64_t backward_rows = 0;        // tokens that took part in the backward products
};

struct DeviceScores {
  std::vector<double> log_probs;  // [T]
  std::vector<double> entropies;  // [T], nats
};

// Memory that lives across calls and grows when it must. Not to be shared by two calls at a time.
class HeadWorkspace {
 public:
  explicit HeadWorkspace(HeadDevice& device) : device_(device) {}
  ~HeadWorkspace();
  HeadWorkspace(const HeadWorkspace&) = delete;
  HeadWorkspace& operator=(const HeadWorkspace&) = delete;

  HeadDevice& device() { return device_; }
  enum Slot { kLogits, kHidden, kGradHidden, kRowData, kNumSlots };
  void* get(Slot slot, size_t bytes);
  void* get_host(size_t bytes);  // where results are downloaded to
  size_t size_bytes() const;     // on the device
  size_t slot_bytes(Slot slot) const { return bytes_[slot]; }

 private:
  HeadDevice& device_;
  void* memory_[kNumSlots] = {};
  size_t bytes_[kNumSlots] = {};
  void* host_memory_ = nullptr;
  size_t host_bytes_ = 0;
};

// Throws ARCHER_E_CONFIG, ARCHER_E_SHAPE (naming the field), ARCHER_E_NUMERIC (naming the token; the gradients are then
// partly written, without that token's), ARCHER_E_ABORTED, ARCHER_E_OOM or ARCHER_E_DEVICE. Returns with the device's
// work done.
HeadLossResult head_loss(const DeviceHead& head, const LossBatch& batch, const LossOptions& options,
                         const HeadLossOptions& head_options, HeadWorkspace& workspace,
                         const JobControl* control = nullptr);

// The same in two halves, for a caller who has more to queue: begin_head_loss() returns as soon as the device has all
// its work (at once where the classes are known beforehand), finish() waits for the statistics alone and makes the
// result, while the last products may still be running. Faults among the logits show in finish(). The batch's spans and
// the workspace must be left alone in between.
class PendingHeadLoss {
 public:
  virtual ~PendingHeadLoss() = default;
  virtual HeadLossResult finish() = 0;
};
std::unique_ptr<PendingHeadLoss> begin_head_loss(const DeviceHead& head, const LossBatch& batch,
                                                 const LossOptions& options, const HeadLossOptions& head_options,
                                                 HeadWorkspace& workspace, const JobControl* control = nullptr);

// Log-probabilities and entropies of the softmax of the logits / temperature.
DeviceScores score_tokens_on(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature,
                             const HeadLossOptions& head_options, HeadWorkspace& workspace,
                             const JobControl* control = nullptr);

// The gradients for given dL/dlogp and dL/dH (empty: 0) per token: computes logits and statistics of the tokens whose
// coefficients are not both 0. Returns how many those are.
int64_t backward_on(const DeviceHead& head, std::span<const int32_t> ids_T, double temperature,
                    std::span<const float> grad_log_prob_T, std::span<const float> grad_entropy_T,
                    const HeadLossOptions& head_options, HeadWorkspace& workspace,
                    const JobControl* control = nullptr);

}  // namespace archer
