// Scoring: log-probs and entropies of given responses under the current weights, for old and reference log-probs.
#include "train/head_pass.h"
#include "train/trainer.h"

namespace archer {

Scores score(const Transformer& model, const PackedResponses& packed, double temperature, JobControl* control) {
  const ResponseRows rows = response_rows(packed, model.device().is_cpu());
  HeadBuffers buffers;
  const TokenScores result =
      head_scores(model.hidden_states(rows.sequences, control), model, rows, packed.responses.ids, temperature, buffers, control);
  return {{result.log_probs.begin(), result.log_probs.end()}, {result.entropies.begin(), result.entropies.end()}};
}

}  // namespace archer
