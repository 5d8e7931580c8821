#include "generate/plan.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "core/error.h"
#include "model/pages.h"

namespace archer {

void validate(const SamplingOptions& options) {
  const auto refuse_unless = [](bool holds, const char* name, auto value, const char* range) {
    require(holds, kConfig, std::string(name) + " is " + std::to_string(value) + "; it must be " + range);
  };
  const bool in_range = options.temperature >= 1e-4 && options.temperature <= 1e4;
  refuse_unless(options.temperature == 0.0 || in_range, "temperature", options.temperature,
                "0 (greedy) or between 0.0001 and 10000");
  refuse_unless(options.top_k == -1 || options.top_k >= 1, "top_k", options.top_k, "-1 (off) or at least 1");
  refuse_unless(options.top_p > 0.0 && options.top_p <= 1.0, "top_p", options.top_p, "above 0 and at most 1 (off)");
  refuse_unless(options.min_p >= 0.0 && options.min_p <= 1.0, "min_p", options.min_p, "between 0 (off) and 1");
}

void validate(const GenerateRequest& request, int64_t vocab_size) {
  const PackedSequences& prompts = request.prompts;
  const int64_t N = prompts.num_sequences();
  require(N >= 1, kShape, "there is no prompt to generate from");
  require(prompts.offsets.front() == 0 && prompts.offsets.back() == prompts.num_tokens(), kShape,
          "the prompts' offsets must run from 0 to the number of tokens, " + std::to_string(prompts.num_tokens()));
  for (int64_t i = 0; i < N; ++i) {
    require(prompts.length(i) > 0, kShape, "prompt " + std::to_string(i) + " has no tokens");
  }
  const auto one_per_prompt = [&](const char* what, size_t count) {
    require(static_cast<int64_t>(count) == N, kShape,
            std::to_string(count) + " " + what + " for " + std::to_string(N) + " prompts");
  };
  one_per_prompt("prompt keys", request.prompt_keys.size());
  if (!request.expected_lengths.empty()) one_per_prompt("expected lengths", request.expected_lengths.size());
  const auto at_least = [](const char* name, int64_t value, int64_t least) {
    require(value >= least, kConfig,
            std::string(name) + " is " + std::to_string(value) + "; it must be at least " + std::to_string(least));
  };
  at_least("num_samples", request.num_samples, 1);
  at_least("max_new_tokens", request.max_new_tokens, 1);
  at_least("max_slots", request.max_slots, 0);
  at_least("kv_budget_bytes", request.kv_budget_bytes, 0);
  validate(request.sampling);
  request.stop.validate(vocab_size);
}

std::vector<int64_t> longest_first(const GenerateRequest& request) {
  const auto expected = [&](int64_t prompt) {
    const double known = request.expected_lengths.empty() ? std::nan("") : request.expected_lengths[prompt];
    return std::isnan(known) ? static_cast<double>(request.prompts.length(prompt)) : known;
  };
  std::vector<int64_t> order(static_cast<size_t>(request.prompts.num_sequences()));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return expected(a) > expected(b); });
  return order;
}

int64_t most_running(const GenerateRequest& request) {
  const int64_t num_responses = request.prompts.num_sequences() * request.num_samples;
  return request.max_slots > 0 ? std::min(num_responses, request.max_slots) : num_responses;
}

int64_t longest_positions(const GenerateRequest& request) {
  int64_t longest = 0;
  for (int64_t i = 0; i < request.prompts.num_sequences(); ++i) longest = std::max(longest, request.prompts.length(i));
  return longest + request.max_new_tokens - 1;
}

int64_t plan_pages(const GenerateRequest& request, int64_t running, int64_t page_bytes, int64_t budget_bytes) {
  const int64_t positions = longest_positions(request), per_sequence = pages_for(positions);
  // Whoever runs at full length, one open prompt, and the page for each that room() wants to see free.
  const int64_t most = std::min<int64_t>((running + 1) * (per_sequence + 1), std::numeric_limits<int32_t>::max());
  if (budget_bytes == 0) return most;
  require(budget_bytes / page_bytes >= per_sequence, kOom,
          "one sequence needs " + std::to_string(per_sequence * page_bytes) + " bytes of keys and values (longest prompt " +
              std::to_string(positions + 1 - request.max_new_tokens) + " + max_new_tokens " +
              std::to_string(request.max_new_tokens) + " - 1 = " + std::to_string(positions) + " positions, in pages of " +
              std::to_string(kKvPage) + " positions and " + std::to_string(page_bytes) + " bytes), the budget is " +
              std::to_string(budget_bytes) + " bytes: lower max_new_tokens or raise the budget");
  return std::min(most, budget_bytes / page_bytes);
}

}  // namespace archer
