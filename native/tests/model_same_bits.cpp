// bfloat16 through tiles: a token's hidden state has the same bits alone and among others, in prefill, in decoding, in scoring
// and in the training forward.
#include "core/attention.h"
#include "core/linear.h"
#include "kernels/cpu_isa.h"
#include "model/training_pass.h"
#include "model_fixture.h"

using namespace archer;
using namespace fixture;

namespace {

// Every sequence of a pack: prefilled but for its last `decoded` tokens, which are then fed one by one. -> [N, decoded + 1, H]
at::Tensor generated(const Transformer& model, const PackedSequences& all, int decoded, KvCache& cache,
                     const std::vector<PageTable>& tables) {
  PackedSequences prompts{{}, {0}};
  for (int64_t i = 0; i < all.num_sequences(); ++i) {
    prompts.ids.insert(prompts.ids.end(), all.ids.begin() + all.offsets[i], all.ids.begin() + all.offsets[i + 1] - decoded);
    prompts.offsets.push_back(static_cast<int32_t>(prompts.ids.size()));
  }
  std::vector<PrefillTarget> targets;
  for (const PageTable& table : tables) targets.push_back({table});
  const std::vector<Pages> pages(tables.begin(), tables.end());
  std::vector<at::Tensor> states = {model.prefill(prompts, targets, cache, nullptr)};
  for (int step = decoded; step > 0; --step) {
    std::vector<int32_t> ids, positions;
    for (int64_t i = 0; i < all.num_sequences(); ++i) {
      ids.push_back(all.ids[all.offsets[i + 1] - step]);
      positions.push_back(all.offsets[i + 1] - all.offsets[i] - step);
    }
    states.push_back(model.decode(ids, positions, pages, cache, nullptr));
  }
  return at::stack(states, 1);
}

void check_flavour(const Flavour& flavour) {
  const Transformer model = make_model(flavour.config, at::kBFloat16, 1, true, flavour.lora);
  constexpr int kDecoded = 5;
  const PackedSequences all = make_sequences({9, 21, 6, 133, 66}, flavour.config.vocab_size, 12);
  const at::Tensor scored_TH = model.hidden_states(all, nullptr);
  TrainingPass pass(model);
  CHECK(at::equal(pass.forward(all, nullptr), scored_TH));
  KvCache together(flavour.config, at::kBFloat16, 11), alone(flavour.config, at::kBFloat16, 3);
  const at::Tensor states = generated(model, all, kDecoded, together, {{3}, {8}, {0}, {10, 2, 5}, {1, 7}});
  for (int i = 0; i < all.num_sequences(); ++i) {
    const PackedSequences one = part(all, i, i + 1);
    const at::Tensor expected = scored_TH.narrow(0, all.offsets[i + 1] - kDecoded - 1, kDecoded + 1);
    CHECK(at::equal(states[i], expected));
    CHECK(at::equal(generated(model, one, kDecoded, alone, {{0, 1, 2}})[0], expected));
    CHECK(at::equal(generated(model, one, 0, alone, {{0, 1, 2}})[0], expected.slice(0, kDecoded)));
    const at::Tensor trained = pass.forward(one, nullptr);
    CHECK(at::equal(trained, scored_TH.slice(0, all.offsets[i], all.offsets[i + 1])));
    CHECK(at::equal(model.logits(trained), model.logits(scored_TH).slice(0, all.offsets[i], all.offsets[i + 1])));
  }
}

}  // namespace

int main() {
  bool any = false;
  for (const CpuIsa isa : {CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    any = true;
    CHECK(linear_is_row_exact(at::kBFloat16) && attention_is_row_exact(at::kBFloat16));
    for (const Flavour& flavour : flavours()) {
      check_flavour(flavour);
      check_flavour(with_adapters(flavour, true));
    }
    Flavour wide = flavours()[0];  // whole blocks of head_dim, an odd group
    wide.config.num_heads = 3;
    wide.config.num_kv_heads = 1;
    wide.config.head_dim = 64;
    check_flavour(wide);
    check_flavour(with_adapters(wide, true));
  }
  if (!any) {
    std::printf("this processor has neither AVX512-BF16 nor AMX\n");
    return 77;
  }
  return check::finish();
}
