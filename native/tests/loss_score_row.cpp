// A sample's log-prob and entropy are the loss's, bit for bit: score_row from a row of logits against score_tokens from the
// hidden states, for vocabularies of every remainder, temperatures, and ids so improbable that the sums are shifted.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <vector>

#include "core/linear.h"
#include "kernels/cpu_isa.h"
#include "kernels/tile_score.h"
#include "loss/fused_loss.h"

#undef CHECK  // libtorch's logging has a macro of this name
#include "check.h"

using namespace archer;

namespace {

void check_rows(int64_t rows, int64_t vocabulary, int64_t hidden_size, double temperature, double scale) {
  const at::Tensor hidden = at::randn({rows, hidden_size}).to(at::kBFloat16);
  const at::Tensor head = (at::randn({vocabulary, hidden_size}) * scale).to(at::kBFloat16);
  at::Tensor logits = at::empty({rows, vocabulary});
  CHECK(own_logits(hidden, head, logits));
  const at::Tensor least = logits.argmin(1), random = at::randint(vocabulary, {rows});
  std::vector<int32_t> ids;  // every other one the least probable
  for (int64_t r = 0; r < rows; ++r) ids.push_back((r % 2 ? least : random)[r].item<int32_t>());
  const TokenScores scores = score_tokens(hidden, head, ids, temperature);
  for (int64_t r = 0; r < rows; ++r) {
    const auto one = kernels::score_row(logits[r].const_data_ptr<float>(), vocabulary, ids[r], static_cast<float>(temperature));
    CHECK(one.log_prob == static_cast<float>(scores.log_probs[r]));
    CHECK(one.entropy == static_cast<float>(scores.entropies[r]));
    CHECK(one.log_prob <= 0.0f && one.entropy >= 0.0f);
  }
}

}  // namespace

int main() {
  at::set_num_threads(2);
  at::manual_seed(1);
  bool any = false;
  for (const CpuIsa isa : {CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    any = true;
    for (const int64_t vocabulary : {1, 17, 255, 256, 257, 4095, 4096, 4097, 9000, 70001}) {
      check_rows(35, vocabulary, 40, 1.0, 0.3);
      check_rows(3, vocabulary, 64, 0.7, 1.0);
      check_rows(4, vocabulary, 64, 0.4, 4.0);  // logits hundreds apart: sums beyond kLargestSum
    }
  }
  if (!any) {
    std::printf("this processor has neither AVX512-BF16 nor AMX\n");
    return 77;
  }
  return check::finish();
}
