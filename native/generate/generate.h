// Batched generation: n samples for each of N prompts with continuous batching over one KV cache in pages. A prompt is
// prefilled once, and its pages are shared by its samples.
// A response depends on the weights and on (seed, step, prompt key, sample index) alone: not on the order of the prompts,
// which of them are there, the number of slots or the memory, up to the rounding of batched matrix products; to the last
// bit in bfloat16 tiles, where products do not depend on the batch (core/linear.h), and with batch_invariant (docs/rollout.md).
#pragma once
#include <cstdint>

#include "core/job_control.h"
#include "generate/request.h"
#include "model/transformer.h"

namespace archer {

// The most that generating holds beside the pages of the cache: a prefill, or a decode step of `running` sequences, and the
// logits. prompt_tokens: of all prompts; longest: of the longest sequence, which may have to be prefilled again.
int64_t sampling_bytes(const Transformer& model, int64_t prompt_tokens, int64_t longest, int64_t running);

// control (may be null): polled per layer and step; `done` counts generated tokens, `total` is their upper bound
// N * n * max_new_tokens. ARCHER_E_SHAPE, _CONFIG on a bad request; _OOM where the budget does not hold one sequence of the
// longest prompt and max_new_tokens;
// _NUMERIC where logits are not finite; _ABORTED.
GenerateResult generate(const Transformer& model, const GenerateRequest& request, JobControl* control);

}  // namespace archer
