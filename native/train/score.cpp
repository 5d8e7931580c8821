// Scoring: log-probs and entropies of given responses under the current weights, for old and reference log-probs.
#include <ATen/ops/index_select.h>

#include "loss/fused_loss.h"
#include "train/trainer.h"

namespace archer {

Scores score(const Transformer& model, const PackedResponses& packed, double temperature, JobControl* control) {
  const ResponseRows rows = response_rows(packed);
  const at::Tensor hidden_RH = model.hidden_states(rows.sequences, control).index_select(0, ids_tensor(rows.predictors));
  const auto result = score_tokens(hidden_RH, model.head().compute, packed.responses.ids, temperature, control);
  return {{result.log_probs.begin(), result.log_probs.end()}, {result.entropies.begin(), result.entropies.end()}};
}

}  // namespace archer
