// Which hidden states predict the response tokens of packed sequences. Row t of the loss is token t of the responses laid
// end to end; the state that predicts the token at position p of a sequence is the one at position p - 1.
//   T tokens of all sequences, R response tokens, N sequences
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/packed.h"

namespace archer {

struct ResponseRows {
  std::vector<int64_t> predictors;  // [R] row of hidden_TH that predicts the token
  std::vector<int64_t> tokens;      // [R] index of the token in ids_T
  std::vector<int32_t> lengths;     // [N] response tokens
};

inline ResponseRows response_rows(const PackedSequences& sequences, const std::vector<int32_t>& prompt_lengths) {
  require(static_cast<int64_t>(prompt_lengths.size()) == sequences.num_sequences(), kShape,
          "promptLengths has " + std::to_string(prompt_lengths.size()) + " entries for " +
              std::to_string(sequences.num_sequences()) + " sequences");
  ResponseRows rows;
  for (size_t i = 0; i < prompt_lengths.size(); ++i) {
    const int64_t begin = sequences.offsets[i], end = sequences.offsets[i + 1];
    const int64_t prompt = prompt_lengths[i];
    require(prompt >= 1 && prompt <= end - begin, kShape,
            "promptLengths[" + std::to_string(i) + "] = " + std::to_string(prompt) + " must lie between 1 and the sequence's " +
                std::to_string(end - begin) + " tokens");
    for (int64_t t = begin + prompt; t < end; ++t) {
      rows.tokens.push_back(t);
      rows.predictors.push_back(t - 1);
    }
    rows.lengths.push_back(static_cast<int32_t>(end - begin - prompt));
  }
  return rows;
}

// values_R of the response tokens, from values_T aligned with all tokens.
template <typename G, typename F>
std::vector<G> gather(const std::vector<F>& values_T, const std::vector<int64_t>& tokens) {
  std::vector<G> result;
  result.reserve(tokens.size());
  for (const int64_t t : tokens) result.push_back(static_cast<G>(values_T[static_cast<size_t>(t)]));
  return result;
}

// The way back: values of the response tokens at their places among all tokens, `elsewhere` at the others.
template <typename F, typename G>
std::vector<F> scatter(const std::vector<G>& values_R, const std::vector<int64_t>& tokens, int64_t num_tokens, F elsewhere) {
  std::vector<F> result(static_cast<size_t>(num_tokens), elsewhere);
  for (size_t r = 0; r < tokens.size(); ++r) result[static_cast<size_t>(tokens[r])] = static_cast<F>(values_R[r]);
  return result;
}

}  // namespace archer
