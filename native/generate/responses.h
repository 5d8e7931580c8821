// The responses of a generation as they grow: which random number comes next, when one ends, and all of them laid flat.
#pragma once
#include <cstdint>
#include <vector>

#include "generate/decoder.h"
#include "generate/request.h"

namespace archer {

// Response r = i * n + j is sample j of prompt i.
class Responses {
 public:
  explicit Responses(const GenerateRequest& request);

  // The draw of a response's next token from a row of logits.
  Draw next_draw(int64_t row, int64_t response) const;
  // Tokens that a response may still get.
  int64_t budget(int64_t response) const { return request_.max_new_tokens - static_cast<int64_t>(ids(response).size()); }
  // Appends a token; true if that ends the response.
  bool accept(int64_t response, const SampledToken& token);
  const std::vector<int32_t>& ids(int64_t response) const { return responses_[static_cast<size_t>(response)].ids; }
  int64_t num_tokens() const { return num_tokens_; }
  GenerateResult flatten(const GenerateStats& stats) const;

 private:
  struct Response {
    std::vector<int32_t> ids;
    std::vector<float> log_probs;
    std::vector<float> entropies;
    StopStringMatcher stop_strings;
    FinishReason finish_reason = FinishReason::length;
  };

  const GenerateRequest& request_;
  std::vector<Response> responses_;  // [N * n]
  int64_t num_tokens_ = 0;
};

}  // namespace archer
