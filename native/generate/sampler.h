// Sampled tokens for rows of logits, in parallel over the draws. Which random number a draw uses is fixed by its key
// (core/philox.h), so a token depends on its logits and its key and on nothing around it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "generate/decoder.h"
#include "generate/request.h"

namespace archer {

// logits_MV: raw, [M, V], float32 or float64, contiguous, of a model that computes in model_dtype: where the loss of such a
// model runs in tiles, log-prob and entropy are those of the loss, bit for bit (kernels/tile_score.h), else those of
// kernels/sample_row.h. ARCHER_E_NUMERIC names the first draw whose row defines no distribution.
std::vector<SampledToken> sample(const at::Tensor& logits_MV, const SamplingOptions& options,
                                 const std::vector<Draw>& draws, uint64_t seed, uint32_t step,
                                 at::ScalarType model_dtype = at::kFloat);

}  // namespace archer
