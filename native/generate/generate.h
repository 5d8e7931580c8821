// Batched generation: n samples for each of N prompts with continuous batching over one KV cache in pages. A prompt is
// prefilled once, and its pages are shared by its samples.
// A response depends on the weights and on (seed, step, prompt key, sample index) alone: not on the order of the prompts,
// which of them are there, the number of slots or the memory, up to the rounding of batched matrix products; to the last
// bit in bfloat16 tiles, where products do not depend on the batch (core/linear.h), and with batch_invariant (docs/rollout.md).
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
  int64_t decode_steps = 0;      // calls of Transformer::decode
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

// The most that generating holds beside the pages of the cache: a prefill, or a decode step of `running` sequences, and the
// logits. prompt_tokens: of all prompts; longest: of the longest sequence, which may have to be prefilled again.
int64_t sampling_bytes(const Transformer& model, int64_t prompt_tokens, int64_t longest, int64_t running);

// control (may be null): polled per layer and step; `done` counts generated tokens, `total` is their upper bound
// N * n * max_new_tokens. ARCHER_E_SHAPE, _CONFIG on a bad request; _OOM where the budget does not hold one sequence of the
// longest prompt and max_new_tokens;
// _NUMERIC where logits are not finite; _ABORTED.
GenerateResult generate(const Transformer& model, const GenerateRequest& request, JobControl* control);

}  // namespace archer
