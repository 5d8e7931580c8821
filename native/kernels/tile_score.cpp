#include "kernels/tile_score.h"

#include <algorithm>

namespace archer::kernels {

TokenScore score_row(const float* logits_V, int64_t vocabulary, int32_t id, float temperature) {
  const TileKernels& tiles = *tile_kernels();
  const float scale = exponent_scale(temperature);
  float shift = logits_V[id], excess = 0.0f;
  double sum = 0, weighted = 0;
  const auto sum_from = [&](float origin) {
    sum = weighted = 0;
    for (int64_t begin = 0; begin < vocabulary; begin += vocabulary_share(vocabulary)) {
      const int64_t end = std::min(begin + vocabulary_share(vocabulary), vocabulary);
      double share_sum = 0, share_weighted = 0;
      tiles.sum_row(logits_V + begin, end - begin, origin, scale, &share_sum, &share_weighted);
      sum += share_sum;
      weighted += share_weighted;
    }
  };
  sum_from(shift);
  if (!(sum < kLargestSum)) {
    const float largest = *std::max_element(logits_V, logits_V + vocabulary);
    excess = (shift - largest) / temperature;
    sum_from(largest);
  }
  return token_score(sum, weighted, excess);
}

}  // namespace archer::kernels
