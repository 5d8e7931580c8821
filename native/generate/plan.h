// What is settled before anything runs: whether a request is sound, in which order its prompts run, and how many pages the
// cache has.
#pragma once
#include <cstdint>
#include <vector>

#include "generate/request.h"

namespace archer {

constexpr int64_t kPrefillTokens = 4096;  // tokens in one prefill, unless one sequence alone is longer

// ARCHER_E_SHAPE or ARCHER_E_CONFIG, naming what is wrong.
void validate(const GenerateRequest& request, int64_t vocab_size);

// Prompts in the order in which they start: those expected to give the longest responses first, so that no long response
// begins when the batch is emptying.
std::vector<int64_t> longest_first(const GenerateRequest& request);

// Sequences that may be decoded together.
int64_t most_running(const GenerateRequest& request);

// Positions of the longest possible sequence: the last token of a response is never fed back.
int64_t longest_positions(const GenerateRequest& request);

// As many pages as the budget pays for (0: any number), and no more than `running` sequences at once can use. ARCHER_E_OOM
// where they would not hold the longest possible sequence.
int64_t plan_pages(const GenerateRequest& request, int64_t running, int64_t page_bytes, int64_t budget_bytes);

}  // namespace archer
