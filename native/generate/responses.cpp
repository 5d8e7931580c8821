#include "generate/responses.h"

namespace archer {

Responses::Responses(const GenerateRequest& request)
    : request_(request), responses_(static_cast<size_t>(request.prompts.num_sequences() * request.num_samples)) {}

Draw Responses::next_draw(int64_t row, int64_t response) const {
  const int64_t prompt = response / request_.num_samples, sample_index = response % request_.num_samples;
  return {row, request_.prompt_keys[static_cast<size_t>(prompt)],
          request_.sample_offset + static_cast<uint32_t>(sample_index), static_cast<uint32_t>(ids(response).size())};
}

bool Responses::accept(int64_t index, const SampledToken& token) {
  Response& response = responses_[static_cast<size_t>(index)];
  response.ids.push_back(token.id);
  response.log_probs.push_back(static_cast<float>(token.logp));
  response.entropies.push_back(static_cast<float>(token.entropy));
  ++num_tokens_;
  if (request_.on_token) request_.on_token(index / request_.num_samples, index % request_.num_samples, token.id);
  if (request_.stop.is_stop_token(token.id)) {
    response.finish_reason = FinishReason::stop;
  } else if (response.stop_strings.push(token.id, request_.stop)) {
    response.finish_reason = FinishReason::stop_string;
  } else {
    response.finish_reason = FinishReason::length;
    return static_cast<int64_t>(response.ids.size()) == request_.max_new_tokens;
  }
  return true;
}

GenerateResult Responses::flatten(const GenerateStats& stats) const {
  GenerateResult result;
  result.stats = stats;
  result.stats.generated_tokens = num_tokens_;
  result.ids.reserve(static_cast<size_t>(num_tokens_));
  result.log_probs.reserve(static_cast<size_t>(num_tokens_));
  result.entropies.reserve(static_cast<size_t>(num_tokens_));
  result.offsets.push_back(0);
  for (const Response& response : responses_) {
    result.ids.insert(result.ids.end(), response.ids.begin(), response.ids.end());
    result.log_probs.insert(result.log_probs.end(), response.log_probs.begin(), response.log_probs.end());
    result.entropies.insert(result.entropies.end(), response.entropies.begin(), response.entropies.end());
    result.offsets.push_back(static_cast<int32_t>(result.ids.size()));
    result.finish_reasons.push_back(response.finish_reason);
  }
  return result;
}

}  // namespace archer
