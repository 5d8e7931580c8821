// From the sums of exponentials of tile_head.h to (logp, H), in one place for the two who do it: the loss (loss/tile_pass.h),
// whose rows lie side by side, and sampling, whose rows of logits lie one behind the other. Same logits, same additions in the
// same order, same bits: the ratio of the first update is exactly 1.
#pragma once
#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/tile_head.h"

namespace archer::kernels {

// S and X are summed by share of the vocabulary, then over the shares: the same whoever computes them, on how many threads.
constexpr int64_t kVocabularyShares = 16;
inline int64_t vocabulary_share(int64_t vocabulary) {
  constexpr int64_t kStep = kVocabularyShares * kVocabularyStep;
  return (vocabulary + kStep - 1) / kStep * kVocabularyStep;
}

// TileForward::scale.
inline float exponent_scale(float temperature) {
  return static_cast<float>(std::numbers::log2e / static_cast<double>(temperature));
}

// Beyond this sum the sampled id has p < 1e-15, and float32 nears its ends: shift by the largest logit instead.
constexpr double kLargestSum = 1e15;

struct TokenScore {
  float log_prob, entropy;  // nats
};

// excess: (z of the id - k) / T, 0 but for a hopelessly improbable id.
inline TokenScore token_score(double sum, double weighted, float excess) {
  const double log_sum = std::log(sum), entropy = log_sum - std::numbers::ln2 * weighted / sum;
  return {static_cast<float>(static_cast<double>(excess) - log_sum), entropy < 0 ? 0.0f : static_cast<float>(entropy)};
}

// Of one id, from its row of raw logits as tile_linear.h writes them. Needs tile_kernels().
TokenScore score_row(const float* logits_V, int64_t vocabulary, int32_t id, float temperature);

}  // namespace archer::kernels
