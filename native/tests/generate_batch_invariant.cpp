// GenerateRequest::batch_invariant: ids, log-probs and entropies with the same bits one response at a time, 8 or 64 at once,
// with the prompts in another order, alone or among others, on one thread or two, and whether a token before it was decoded or
// prefilled; for every dtype and instruction set.
#include <cstring>
#include <map>
#include <numeric>
#include <string>
#include <utility>

#include "generate/generate.h"
#include "kernels/cpu_isa.h"
#include "model_fixture.h"

using namespace archer;

namespace {

constexpr int kPrompts = 16, kSamples = 4;

ModelConfig config() {
  ModelConfig config = fixture::flavours()[1].config;  // with biases, tied
  config.vocab_size = 307;
  config.hidden_size = 100;
  config.intermediate_size = 260;
  config.num_heads = 6;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.max_position_embeddings = 512;
  return config;
}

// A response's numbers, as bits.
using Bits = std::string;

Bits bits_of(const GenerateResult& result, size_t response) {
  const auto begin = static_cast<size_t>(result.offsets[response]), end = static_cast<size_t>(result.offsets[response + 1]);
  Bits bits;
  const auto add = [&](const auto& values) {
    bits.append(reinterpret_cast<const char*>(values.data() + begin), (end - begin) * sizeof values[0]);
  };
  add(result.ids);
  add(result.log_probs);
  add(result.entropies);
  return bits;
}

// By (prompt key, sample).
std::map<std::pair<uint32_t, int>, Bits> generated(const Transformer& model, const PackedSequences& prompts,
                                                   const std::vector<uint32_t>& order, int64_t max_slots, bool invariant) {
  GenerateRequest request;
  request.prompts.offsets.push_back(0);
  for (const uint32_t key : order) {
    request.prompts.ids.insert(request.prompts.ids.end(), prompts.ids.begin() + prompts.offsets[key],
                               prompts.ids.begin() + prompts.offsets[key + 1]);
    request.prompts.offsets.push_back(static_cast<int32_t>(request.prompts.ids.size()));
  }
  request.prompt_keys = order;
  request.num_samples = kSamples;
  request.seed = 3;
  request.max_new_tokens = 6;
  request.stop.token_ids = {5, 6, 7};  // lengths differ
  request.max_slots = max_slots;
  request.batch_invariant = invariant;
  const GenerateResult result = generate(model, request, nullptr);
  std::map<std::pair<uint32_t, int>, Bits> all;
  for (size_t i = 0; i < order.size(); ++i) {
    for (int j = 0; j < kSamples; ++j) all[{order[i], j}] = bits_of(result, i * kSamples + static_cast<size_t>(j));
  }
  return all;
}

// The greedy response to one prompt.
GenerateResult continued(const Transformer& model, const std::vector<int32_t>& prompt, int64_t max_new_tokens) {
  GenerateRequest request;
  request.prompts = {prompt, {0, static_cast<int32_t>(prompt.size())}};
  request.prompt_keys = {0};
  request.sampling.temperature = 0;
  request.max_new_tokens = max_new_tokens;
  request.batch_invariant = true;
  return generate(model, request, nullptr);
}

void check_prefilled_or_decoded(const Transformer& model, const PackedSequences& prompts) {
  constexpr int kTokens = 8, kFirst = 5;
  std::vector<int32_t> ids(prompts.ids.begin() + prompts.offsets[9], prompts.ids.begin() + prompts.offsets[10]);
  const GenerateResult whole = continued(model, ids, kTokens);
  ids.insert(ids.end(), whole.ids.begin(), whole.ids.begin() + kFirst);
  const GenerateResult rest = continued(model, ids, kTokens - kFirst);
  const auto behind = [](const auto& values) { return std::vector(values.begin() + kFirst, values.end()); };
  CHECK(rest.ids == behind(whole.ids));
  CHECK(rest.log_probs == behind(whole.log_probs));
  CHECK(rest.entropies == behind(whole.entropies));
}

void check_dtype(at::ScalarType dtype) {
  const Transformer model = fixture::make_model(config(), dtype, 1, false);
  std::vector<int> lengths;
  for (int i = 0; i < kPrompts; ++i) lengths.push_back(1 + (i * 37) % 90);
  const PackedSequences prompts = fixture::make_sequences(lengths, config().vocab_size, 2);
  std::vector<uint32_t> order(kPrompts);
  std::iota(order.begin(), order.end(), 0u);
  const std::vector<uint32_t> reversed(order.rbegin(), order.rend());

  at::set_num_threads(1);
  const auto alone = generated(model, prompts, order, 1, true);
  const auto plain = generated(model, prompts, order, 64, false);
  int differ = 0;
  for (const auto& [key, bits] : alone) differ += bits != plain.at(key);
  std::printf("%s, %s: %d of %zu responses differ without batch_invariant\n", c10::toString(dtype), cpu_isa_name(cpu_isa()),
              differ, alone.size());
  CHECK(generated(model, prompts, order, 8, true) == alone);
  CHECK(generated(model, prompts, reversed, 64, true) == alone);
  for (const auto& [key, bits] : generated(model, prompts, {9}, 3, true)) CHECK(bits == alone.at(key));
  check_prefilled_or_decoded(model, prompts);
  at::set_num_threads(2);
  CHECK(generated(model, prompts, reversed, 8, true) == alone);
  CHECK(generated(model, prompts, order, 64, true) == alone);
}

}  // namespace

int main() {
  for (const CpuIsa isa : {CpuIsa::plain, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    check_dtype(at::kBFloat16);
    if (isa <= CpuIsa::avx512) check_dtype(at::kFloat);  // beyond, its products are the same
  }
  check_dtype(at::kDouble);
  return check::finish();
}
