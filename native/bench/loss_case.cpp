// Data and one timed iteration; see loss_case.h.
#include "bench/loss_case.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>

#include "bench/process_stats.h"
#include "core/error.h"

namespace archer::bench {
namespace {

constexpr double kLogitDeviation = 3.0;  // of z = hidden . head row: entropies of a few nats below ln V
constexpr int64_t kResponseTokens = 256;

const LossShape kShapes[] = {{"smollm2-512", 512, 576, 49152},
                             {"smollm2-2048", 2048, 576, 49152},
                             {"qwen-256", 256, 1536, 151936}};

at::Tensor random_matrix(int64_t rows, int64_t columns, at::ScalarType dtype, double deviation, uint64_t seed) {
  at::Tensor matrix = at::empty({rows, columns}, at::TensorOptions().dtype(dtype));
  matrix.normal_(0, deviation, at::detail::createCPUGenerator(seed));  // in place: no float32 copy to account for
  return matrix;
}

}  // namespace

LossShape shape_from_name(const std::string& name) {
  std::string known;
  for (const LossShape& shape : kShapes) {
    if (shape.name == name) return shape;
    known += shape.name + ", ";
  }
  LossShape shape{name};
  int end = 0;
  const int read = std::sscanf(name.c_str(), "%9ldx%9ldx%9ld%n", &shape.tokens, &shape.hidden, &shape.vocabulary, &end);
  require(read == 3 && static_cast<size_t>(end) == name.size() && shape.tokens > 0 && shape.hidden > 0 &&
              shape.vocabulary > 1,
          kConfig,
          "The shape " + name + " is not known; use " + known + "or tokens x hidden x vocabulary as in 8x16x50.");
  return shape;
}

LossCase::LossCase(const LossShape& shape, at::ScalarType dtype, bool keep_memory, int64_t chunk_tokens,
                   int64_t response_tokens)
    : shape_(shape) {
  options_.clip_ratio_c = 3;
  options_.chunk_tokens = chunk_tokens;
  const double head_deviation = kLogitDeviation / std::sqrt(static_cast<double>(shape.hidden));
  hidden_TH_ = random_matrix(shape.tokens, shape.hidden, dtype, 1, 1);
  head_VH_ = random_matrix(shape.vocabulary, shape.hidden, dtype, head_deviation, 2);
  grad_hidden_TH_ = at::zeros(hidden_TH_.sizes(), hidden_TH_.options());
  grad_head_VH_ = at::zeros(head_VH_.sizes(), at::TensorOptions().dtype(at::kFloat));
  grad_hidden_TH_.fill_(0);  // zeros() may hand out pages that nobody has touched yet
  grad_head_VH_.fill_(0);

  const auto num_tokens = static_cast<size_t>(shape.tokens);
  const int64_t length = std::min(shape.tokens, response_tokens > 0 ? response_tokens : kResponseTokens);
  for (int64_t t = 0; t < shape.tokens; t += length) {
    lengths_.push_back(static_cast<int32_t>(std::min(length, shape.tokens - t)));
    group_ids_.push_back(0);
  }
  mask_.assign(num_tokens, 1);
  std::mt19937_64 random(3);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int32_t> any_id(0, static_cast<int32_t>(shape.vocabulary) - 1);
  for (size_t t = 0; t < num_tokens; ++t) ids_.push_back(any_id(random));
  for (size_t i = 0; i < lengths_.size(); ++i) {
    advantages_.push_back((i % 2 ? -1 : 1) * (0.2 + std::abs(normal(random))));
  }

  // Code pages, thread pools and the like are nobody's extra memory: a tiny loss of the same kind touches them first.
  if (shape.tokens > 8 || shape.vocabulary > 64) {
    LossCase tiny({"tiny", 8, 16, 64}, dtype, false, 0, 0);
    tiny.run();
  }
  malloc_trim(0);
  if (keep_memory) keep_freed_memory();
  base_bytes_ = status_bytes("VmRSS:");
  set_rollout();
}

// The rollout's log-probs and entropies lie beside those of the policy as it is now.
void LossCase::set_rollout() {
  const TokenScores now = score_tokens(hidden_TH_, head_VH_, ids_, options_.temperature);
  std::mt19937_64 random(4);
  std::normal_distribution<double> normal;
  for (size_t t = 0; t < ids_.size(); ++t) {
    old_log_probs_.push_back(now.log_probs[t] - 0.05 * normal(random));
    ref_log_probs_.push_back(now.log_probs[t] + 0.1 * normal(random));
    old_entropies_.push_back(std::abs(now.entropies[t] + 0.05 * normal(random)));
  }
}

LossBatch LossCase::batch() const {
  const auto num_tokens = static_cast<double>(shape_.tokens);
  const Denominators denominators{static_cast<double>(lengths_.size()), num_tokens, num_tokens};
  return {ids_,           lengths_,       group_ids_,  mask_, old_log_probs_,
          old_entropies_, ref_log_probs_, advantages_, {},    denominators};
}

Sample LossCase::run() {
  const bool peak_is_known = reset_peak_memory();
  Sample sample;
  const double began = wall_seconds(), cpu_began = cpu_seconds();
  backward_rows_ =
      fused_loss(hidden_TH_, head_VH_, batch(), options_, grad_hidden_TH_, grad_head_VH_, nullptr, &workspace_)
          .backward_rows;
  sample.seconds = wall_seconds() - began;
  sample.cpu_seconds = cpu_seconds() - cpu_began;
  if (peak_is_known) sample.peak_bytes = std::max<int64_t>(0, status_bytes("VmHWM:") - base_bytes_);
  return sample;
}

}  // namespace archer::bench
