// Scoring: log-probs and entropies of given responses under the current weights, for old and reference log-probs.
#include <algorithm>

#include "train/head_pass.h"
#include "train/response_rows.h"
#include "train/trainer.h"

namespace archer {

Scores score(const Transformer& model, const PackedSequences& sequences, const std::vector<int32_t>& prompt_lengths,
             double temperature, int64_t max_tokens, JobControl* control) {
  require(static_cast<int64_t>(prompt_lengths.size()) == sequences.num_sequences(), kShape, "promptLengths needs one entry per sequence");
  Scores scores{std::vector<float>(static_cast<size_t>(sequences.num_tokens())),
                std::vector<float>(static_cast<size_t>(sequences.num_tokens()))};
  control->total = sequences.num_sequences();
  HeadBuffers buffers;
  size_t first = 0;
  const size_t num_sequences = prompt_lengths.size();
  while (first < num_sequences) {
    // as many whole sequences as fit, at least one
    size_t last = first + 1;
    while (last < num_sequences && sequences.offsets[last + 1] - sequences.offsets[first] <= max_tokens) ++last;
    const int32_t begin = sequences.offsets[first], end = sequences.offsets[last];
    PackedSequences part{{sequences.ids.begin() + begin, sequences.ids.begin() + end}, {}};
    for (size_t i = first; i <= last; ++i) part.offsets.push_back(sequences.offsets[i] - begin);
    const ResponseRows rows =
        response_rows(part, {prompt_lengths.begin() + static_cast<int64_t>(first), prompt_lengths.begin() + static_cast<int64_t>(last)});
    const TokenScores result = head_scores(model.hidden_states(part, control), model, rows.predictors,
                                           gather<int32_t>(part.ids, rows.tokens), temperature, buffers, control);
    for (size_t r = 0; r < rows.tokens.size(); ++r) {
      const size_t t = static_cast<size_t>(begin + rows.tokens[r]);
      scores.log_probs[t] = static_cast<float>(result.log_probs[r]);
      scores.entropies[t] = static_cast<float>(result.entropies[r]);
    }
    first = last;
    control->done = static_cast<int64_t>(first);
  }
  return scores;
}

}  // namespace archer
