// Sampled tokens for rows of logits, in parallel over the draws. Which random number a draw uses is fixed by its key
// (core/philox.h), so a token depends on its logits and its key and on nothing around it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "kernels/sample_row.h"

namespace archer {

using SamplingOptions = kernels::SampleOptions;  // temperature, top_k, top_p, min_p
using kernels::SampledToken;                     // id, logp, entropy

// ARCHER_E_CONFIG unless temperature is 0 or in [1e-4, 1e4], top_k is -1 or >= 1, top_p in (0, 1], min_p in [0, 1].
void validate(const SamplingOptions& options);

// One draw. Several may read the same row: the first tokens of a group come from its prompt's one row.
struct Draw {
  int64_t row = 0;  // of logits_MV
  uint32_t prompt_key = 0;
  uint32_t sample_index = 0;
  uint32_t position = 0;  // 0-based, counted from the first generated token
};

// logits_MV: raw, [M, V], float32 or float64, contiguous, of a model that computes in model_dtype: where the loss of such a
// model runs in tiles, log-prob and entropy are those of the loss, bit for bit (kernels/tile_score.h), else those of
// kernels/sample_row.h. ARCHER_E_NUMERIC names the first draw whose row defines no distribution.
std::vector<SampledToken> sample(const at::Tensor& logits_MV, const SamplingOptions& options,
                                 const std::vector<Draw>& draws, uint64_t seed, uint32_t step,
                                 at::ScalarType model_dtype = at::kFloat);

}  // namespace archer
