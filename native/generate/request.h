// A generation as it is asked for and as it is answered. Without torch.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/packed.h"
#include "generate/stop.h"
#include "kernels/sample_row.h"

namespace archer {

using SamplingOptions = kernels::SampleOptions;  // temperature, top_k, top_p, min_p
using kernels::SampledToken;                     // id, logp, entropy

// ARCHER_E_CONFIG unless temperature is 0 or in [1e-4, 1e4], top_k is -1 or >= 1, top_p in (0, 1], min_p in [0, 1].
void validate(const SamplingOptions& options);

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
  // Mean lengths to expect of the responses to each prompt, [N]; NaN where unknown: then the prompt's own length counts.
  // May be empty. They decide who starts first, and nothing else.
  std::vector<double> expected_lengths;
  int64_t max_slots = 0;               // sequences decoded at once; 0: N * n
  // Bound on the KV cache; 0: none. Sequences start as long as there is room for a little more than their prompt; where the
  // pages run out, the youngest wait and are prefilled again, with what they have generated.
  int64_t kv_budget_bytes = 0;
  bool batch_invariant = false;  // no arithmetic depends on what is computed beside a response
  // Called for every generated token, in the thread of generate(): (prompt, sample counted from 0, id).
  std::function<void(int64_t prompt, int64_t sample, int32_t id)> on_token;
};

struct GenerateStats {
  int64_t prefill_tokens = 0;    // each prompt once, whatever num_samples is; and again what was preempted
  int64_t generated_tokens = 0;
  int64_t decode_steps = 0;      // of one token for every running sequence
  int64_t most_running = 0;      // sequences in the largest of them
  int64_t num_pages = 0;         // of the cache, of which …
  int64_t most_pages = 0;        // … so many were in use at once
  int64_t num_preemptions = 0;
};

// Response r = i * n + j is sample j of prompt i and holds entries offsets[r] .. offsets[r+1]-1 of the flat arrays.
struct GenerateResult {
  std::vector<int32_t> ids;
  std::vector<float> log_probs;  // of the full softmax at the sampling temperature (generate/sampler.h)
  std::vector<float> entropies;
  std::vector<int32_t> offsets;  // [N * n + 1]
  std::vector<FinishReason> finish_reasons;  // [N * n]
  GenerateStats stats;
};

}  // namespace archer
