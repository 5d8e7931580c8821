// Batched generation: n samples for each of N prompts with continuous batching over the slots of one KV cache.
// A response depends on the weights and on (seed, step, prompt key, sample index) alone: not on the order of the
// prompts, which of them are there, or the number of slots, up to the rounding of batched matrix products.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/job_control.h"
#include "core/packed.h"
#include "generate/sampler.h"
#include "generate/stop.h"
#include "model/transformer.h"

namespace archer {

struct GenerateRequest {
  PackedSequences prompts;             // N prompts, each of at least one token
  std::vector<uint32_t> prompt_keys;   // [N], for the random numbers
  int64_t num_samples = 1;             // n responses per prompt
  uint32_t sample_offset = 0;          // index of a prompt's first sample, for the random numbers
  uint64_t seed = 0;
  uint32_t step = 0;                   // training step, for the random numbers
  SamplingOptions sampling;
  int64_t max_new_tokens = 0;          // per response, the stop token included
  StopConditions stop;
  int64_t max_slots = 0;               // sequences decoded at once; 0: N * n, or as many as the budget holds
  int64_t kv_budget_bytes = 0;         // bound on the KV cache; 0: none
  // Called for every generated token, in the thread of generate(): (prompt, sample counted from 0, id).
  std::function<void(int64_t prompt, int64_t sample, int32_t id)> on_token;
};

struct GenerateStats {
  int64_t prefill_tokens = 0;    // prompt tokens run: each prompt once, whatever num_samples is
  int64_t generated_tokens = 0;
  int64_t decode_steps = 0;      // calls of Transformer::decode
  int64_t num_slots = 0;
  int64_t kv_cache_bytes = 0;
};

// Response r = i * n + j is sample j of prompt i and holds entries offsets[r] .. offsets[r+1]-1 of the flat arrays.
struct GenerateResult {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;  // of the full softmax at the sampling temperature, as kernels/sample_row.h has it
  std::vector<float> entropies;
  std::vector<int32_t> offsets;  // [N * n + 1]
  std::vector<FinishReason> finish_reasons;  // [N * n]
  GenerateStats stats;
};

// control (may be null): polled per layer and step; `done` counts generated tokens, `total` is their upper bound
// N * n * max_new_tokens. ARCHER_E_SHAPE, _CONFIG on a bad request; _OOM where the budget does not hold one sequence;
// _NUMERIC where logits are not finite; _ABORTED.
GenerateResult generate(const Transformer& model, const GenerateRequest& request, JobControl* control);

}  // namespace archer
