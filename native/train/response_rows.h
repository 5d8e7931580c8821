// Responses and the prompts that they answer, and which hidden states predict the responses' tokens. Every prompt is computed once
// for all its responses: the pack is the prompts end to end, then the responses, each of which continues its prompt. Where attention
// cannot do that (on a GPU), each response has its own copy of the prompt.
//   M prompts, N responses, R tokens of all responses end to end; T tokens of the pack
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/packed.h"

namespace archer {

struct PackedResponses {
  PackedSequences prompts, responses;
  std::vector<int32_t> prompt_of;  // [N], 0 ... M-1 ascending: the prompt that each response answers
};

struct ResponseRows {
  PackedSequences sequences;
  std::vector<int32_t> lengths;     // [N] response tokens
  std::vector<int32_t> predictors;  // [R] row of hidden_TH that predicts the token: of the one before it, which may be its prompt's last
  // Per shared prompt that has responses: its last row of hidden_TH, and the rows of [R] that it predicts.
  std::vector<std::pair<int64_t, std::vector<int32_t>>> shared;
};

inline ResponseRows response_rows(const PackedResponses& packed, bool shares_prompts = true) {
  const auto& [prompts, responses, prompt_of] = packed;
  require(static_cast<int64_t>(prompt_of.size()) == responses.num_sequences(), kShape,
          "promptOf has " + std::to_string(prompt_of.size()) + " entries for " + std::to_string(responses.num_sequences()) + " responses");
  const int32_t num_prompts = static_cast<int32_t>(prompts.num_sequences()), prompt_tokens = prompts.offsets.back();
  for (size_t i = 0; i < prompt_of.size(); ++i) {
    const int32_t least = i == 0 ? 0 : prompt_of[i - 1];
    require(least <= prompt_of[i] && prompt_of[i] < num_prompts, kShape,
            "promptOf[" + std::to_string(i) + "] = " + std::to_string(prompt_of[i]) + " must ascend and name one of the " +
                std::to_string(num_prompts) + " prompts");
  }
  ResponseRows rows;
  if (!shares_prompts) {
    rows.sequences.offsets = {0};
    for (size_t i = 0; i < prompt_of.size(); ++i) {
      std::vector<int32_t>& ids = rows.sequences.ids;
      const auto append = [&](const PackedSequences& from, size_t which) {
        ids.insert(ids.end(), from.ids.begin() + from.offsets[which], from.ids.begin() + from.offsets[which + 1]);
      };
      append(prompts, static_cast<size_t>(prompt_of[i]));
      const int32_t begin = static_cast<int32_t>(ids.size());
      append(responses, i);
      const int32_t end = static_cast<int32_t>(ids.size());
      for (int32_t t = begin; t < end; ++t) rows.predictors.push_back(t - 1);
      rows.sequences.offsets.push_back(end);
      rows.lengths.push_back(end - begin);
    }
    return rows;
  }
  rows.sequences = prompts;
  rows.sequences.ids.insert(rows.sequences.ids.end(), responses.ids.begin(), responses.ids.end());
  rows.sequences.parents.assign(static_cast<size_t>(num_prompts), -1);
  rows.sequences.parents.insert(rows.sequences.parents.end(), prompt_of.begin(), prompt_of.end());
  for (size_t i = 0; i < prompt_of.size(); ++i) {
    const int32_t begin = prompt_tokens + responses.offsets[i], end = prompt_tokens + responses.offsets[i + 1];
    rows.sequences.offsets.push_back(end);
    const int32_t state = prompts.offsets[prompt_of[i] + 1] - 1;
    if (i == 0 || prompt_of[i] != prompt_of[i - 1]) rows.shared.push_back({state, {}});
    rows.shared.back().second.push_back(responses.offsets[i]);
    rows.predictors.push_back(state);
    for (int32_t t = begin; t + 1 < end; ++t) rows.predictors.push_back(t);
    rows.lengths.push_back(end - begin);
  }
  return rows;
}

}  // namespace archer
