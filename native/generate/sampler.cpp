// The tensor side of sampling: checks, the keyed random numbers, a parallel loop over draws; the rows are in kernels/.
#include "generate/sampler.h"

#include <ATen/Parallel.h>

#include <string>

#include "core/error.h"
#include "core/philox.h"
#include "kernels/tile_score.h"

namespace archer {
namespace {

template <typename T>
void sample_rows(const at::Tensor& logits_MV, const SamplingOptions& options, const std::vector<Draw>& draws,
                 uint64_t seed, uint32_t step, std::vector<SampledToken>& tokens, std::vector<char>& sampled) {
  const T* logits = logits_MV.const_data_ptr<T>();
  const int64_t V = logits_MV.size(1);
  at::parallel_for(0, static_cast<int64_t>(draws.size()), 1, [&](int64_t begin, int64_t end) {
    kernels::SampleScratch scratch;
    for (int64_t i = begin; i < end; ++i) {
      const Draw& draw = draws[i];
      const double u = sample_uniform(seed, step, draw.prompt_key, draw.sample_index, draw.position);
      sampled[i] = kernels::sample_row(logits + draw.row * V, V, options, u, scratch, &tokens[i]);
    }
  });
}

// The loss's log-probs and entropies instead, for tokens that were sampled.
void score_as_loss(const at::Tensor& logits_MV, const SamplingOptions& options, const std::vector<Draw>& draws,
                   std::vector<SampledToken>& tokens) {
  const float* logits = logits_MV.const_data_ptr<float>();
  const int64_t V = logits_MV.size(1);
  const auto temperature = static_cast<float>(options.temperature == 0.0 ? 1.0 : options.temperature);
  at::parallel_for(0, static_cast<int64_t>(draws.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const kernels::TokenScore score = kernels::score_row(logits + draws[i].row * V, V, tokens[i].id, temperature);
      tokens[i].logp = score.log_prob;
      tokens[i].entropy = score.entropy;
    }
  });
}

}  // namespace

std::vector<SampledToken> sample(const at::Tensor& logits_MV, const SamplingOptions& options,
                                 const std::vector<Draw>& draws, uint64_t seed, uint32_t step,
                                 at::ScalarType model_dtype) {
  const bool float32 = logits_MV.scalar_type() == at::kFloat;
  require(logits_MV.dim() == 2 && logits_MV.size(1) > 0 && logits_MV.is_contiguous() &&
              (float32 || logits_MV.scalar_type() == at::kDouble),
          kShape, "logits must be a contiguous [rows, vocabulary] tensor of float32 or float64");
  for (const Draw& draw : draws) {
    require(draw.row >= 0 && draw.row < logits_MV.size(0), kShape,
            "a draw reads row " + std::to_string(draw.row) + " of " + std::to_string(logits_MV.size(0)));
  }
  std::vector<SampledToken> tokens(draws.size());
  std::vector<char> sampled(draws.size(), 0);
  if (float32) {
    sample_rows<float>(logits_MV, options, draws, seed, step, tokens, sampled);
  } else {
    sample_rows<double>(logits_MV, options, draws, seed, step, tokens, sampled);
  }
  for (size_t i = 0; i < draws.size(); ++i) {
    require(sampled[i] != 0, kNumeric,
            "the logits of generated token " + std::to_string(draws[i].position) + " of sample " +
                std::to_string(draws[i].sample_index) + " (prompt key " + std::to_string(draws[i].prompt_key) +
                ") hold NaN or infinity, so there is nothing to sample from");
  }
  if (model_dtype == at::kBFloat16 && kernels::tile_kernels()) score_as_loss(logits_MV, options, draws, tokens);
  return tokens;
}

}  // namespace archer
