#include "generate/generate.h"

#include <algorithm>

#include "core/batch_invariance.h"
#include "core/gpu.h"
#include "generate/cpu_decoder.h"
#include "generate/gpu_decoder.h"
#include "generate/gpu_weights.h"
#include "generate/plan.h"
#include "generate/scheduler.h"

namespace archer {
namespace {

GenerateResult generate_on(Gpu& gpu, const Transformer& model, const GenerateRequest& request, JobControl* control) {
  require(!request.batch_invariant, kConfig,
          "rollout.batch_invariant is true, but the products of a GPU may differ by batch: set it to false, or device to cpu");
  require(model.adapters().empty(), kConfig,
          "generation on a GPU does not know adapters: set lora.rank to 0, or device to cpu");
  const GpuWeights weights(model, longest_positions(request));
  // Waits, too: generation has a stream of its own, which must not read weights that are still being written.
  release_cached_memory(model.device());
  GpuDecoder decoder(*gpu.decode, model.config(), weights.weights(), request, control);
  return schedule(decoder, request, control);
}

}  // namespace

int64_t sampling_bytes(const Transformer& model, int64_t prompt_tokens, int64_t longest, int64_t running) {
  return CpuDecoder::peak_bytes(model, std::max(std::min(prompt_tokens, kPrefillTokens), longest), running);
}

GenerateResult generate(const Transformer& model, const GenerateRequest& request, JobControl* control) {
  validate(request, model.config().vocab_size);
  if (Gpu* gpu = gpu_of(model.device())) return generate_on(*gpu, model, request, control);
  const BatchInvariantScope scope(request.batch_invariant);
  const int64_t page_bytes = KvCache::page_bytes(model.config(), model.compute_dtype());
  const int64_t num_pages = plan_pages(request, most_running(request), page_bytes, request.kv_budget_bytes);
  CpuDecoder decoder(model, request, num_pages, control);
  return schedule(decoder, request, control);
}

}  // namespace archer
