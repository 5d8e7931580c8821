#include "generate/gpu_decoder.h"

#include <algorithm>

#include "core/error.h"
#include "generate/plan.h"

namespace archer {
namespace {

int64_t page_budget(DecodeDevice& device, const ModelConfig& config, const DecodeLimits& limits, int64_t asked_bytes) {
  const auto free = static_cast<int64_t>(device.free_bytes());
  const auto work = static_cast<int64_t>(DecodeWorkspace().lay_out(nullptr, config, limits));
  // Graphs and the GPU's own libraries take some memory later on.
  const int64_t left = (free - work) / 20 * 19;
  require(left > 0, kOom,
          "generation needs " + std::to_string(work) + " bytes of the GPU for " + std::to_string(limits.max_rows) +
              " sequences; " + std::to_string(free) + " are free: lower max_slots");
  return asked_bytes > 0 ? std::min(asked_bytes, left) : left;
}

DecodeLimits limits_of(DecodeDevice& device, const ModelConfig& config, const GenerateRequest& request) {
  DecodeLimits limits;
  const int64_t positions = longest_positions(request);
  limits.max_rows = static_cast<int32_t>(std::min<int64_t>(most_running(request), kMaxDecodeRows));
  limits.max_positions = static_cast<int32_t>(positions);
  limits.stop_ids = request.stop.token_ids;
  limits.prefill_tokens =
      static_cast<int32_t>(std::min(kPrefillTokens, std::max(positions, request.prompts.num_tokens())));
  limits.num_pages = plan_pages(request, limits.max_rows, static_cast<int64_t>(DecodeEngine::page_bytes(config)),
                                page_budget(device, config, limits, request.kv_budget_bytes));
  return limits;
}

}  // namespace

GpuDecoder::GpuDecoder(DecodeDevice& device, const ModelConfig& config, const DecodeWeights& weights,
                       const GenerateRequest& request, JobControl* control)
    : request_(request),
      control_(control),
      limits_(limits_of(device, config, request)),
      engine_(device, config, weights, limits_) {
  const SamplingOptions& options = request.sampling;
  engine_.set_sampling({options.temperature, options.top_p, options.min_p, options.top_k});
}

void GpuDecoder::prefill(const PackedSequences& sequences, const std::vector<PrefillTarget>& targets_N) {
  std::vector<DecodePrompt> prompts;
  for (size_t i = 0; i < targets_N.size(); ++i) {
    const std::span ids(sequences.ids);
    prompts.push_back({ids.subspan(static_cast<size_t>(sequences.offsets[i]),
                                   static_cast<size_t>(sequences.length(static_cast<int64_t>(i)))),
                       targets_N[i].pages, static_cast<int32_t>(targets_N[i].first)});
  }
  engine_.prefill(prompts, [&] {
    if (control_) control_->check();
  });
}

std::vector<SampledToken> GpuDecoder::draw(const std::vector<Draw>& draws) {
  std::vector<DecodeDraw> on_device;
  for (const Draw& draw : draws) {
    const int32_t row = draw.row == kKeptRow ? engine_.kept_prompt() : static_cast<int32_t>(draw.row);
    on_device.push_back({row, draw.prompt_key, draw.sample_index, draw.position});
  }
  return engine_.draw(on_device, request_.seed, request_.step);
}

std::vector<SampledToken> GpuDecoder::decode(const std::vector<Continuation>& rows) {
  std::vector<DecodeSequence> sequences(rows.size());
  std::vector<DecodeSequence*> all;
  for (size_t i = 0; i < rows.size(); ++i) {
    const Continuation& row = rows[i];
    DecodeSequence& sequence = sequences[i];
    sequence.token = row.token;
    sequence.position = row.position;
    sequence.budget = static_cast<int32_t>(row.budget);
    sequence.prompt_key = row.next.prompt_key;
    sequence.sample_index = row.next.sample_index;
    sequence.num_generated = row.next.position;
    sequence.pages.assign(row.pages.begin(), row.pages.end());
    all.push_back(&sequence);
  }
  engine_.visit(all, request_.seed, request_.step);
  const auto per_visit = static_cast<size_t>(tokens_per_visit());
  std::vector<SampledToken> tokens(rows.size() * per_visit);
  for (size_t i = 0; i < rows.size(); ++i) {
    const DecodeSequence& sequence = sequences[i];
    for (size_t t = 0; t < sequence.ids.size(); ++t) {
      tokens[i * per_visit + t] = {sequence.ids[t], sequence.log_probs[t], sequence.entropies[t]};
    }
  }
  return tokens;
}

}  // namespace archer
