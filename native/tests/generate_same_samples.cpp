// The same samples whatever happens around them: one sequence at a time or all at once, another order, other slots, a memory
// in which they keep giving way to each other, a second thread. In bfloat16 tiles, and everywhere with batch_invariant, to the
// last bit; else in float32 the same ids.
#include <ATen/Parallel.h>

#include <algorithm>
#include <numeric>

#include "core/attention.h"
#include "core/linear.h"
#include "kernels/cpu_isa.h"
#include "tests/generate_fixture.h"

using namespace fixture;
using archer::CpuIsa;

namespace {

// 64 prompts of 1 to 190 tokens.
GenerateRequest many_prompts(bool batch_invariant) {
  Prompts prompts;
  for (int32_t i = 0; i < 64; ++i) {
    prompts.emplace_back();
    for (int32_t t = 0; t <= 3 * i; ++t) prompts.back().push_back((5 * t * t + i * t + 3 * i) % kVocabulary);
  }
  GenerateRequest request = make_request(prompts, 2);
  request.max_new_tokens = 80;
  request.stop.token_ids = {17};
  request.batch_invariant = batch_invariant;
  return request;
}

GenerateRequest reordered(const GenerateRequest& request, const std::vector<int64_t>& order) {
  GenerateRequest other = request;
  other.prompts = {{}, {0}};
  other.prompt_keys.clear();
  for (const int64_t i : order) {
    const auto first = request.prompts.ids.begin() + request.prompts.offsets[i];
    other.prompts.ids.insert(other.prompts.ids.end(), first, first + request.prompts.length(i));
    other.prompts.offsets.push_back(static_cast<int32_t>(other.prompts.num_tokens()));
    other.prompt_keys.push_back(request.prompt_keys[i]);
  }
  return other;
}

// `tolerance` of log-probs and entropies; 0: the same bits.
void compare(const Sample& a, const Sample& b, double tolerance) {
  CHECK(a.same_ids(b) && a.log_probs.size() == b.log_probs.size());
  double worst = 0;
  for (size_t t = 0; t < std::min(a.log_probs.size(), b.log_probs.size()); ++t) {
    worst = std::max<double>(worst, std::abs(a.log_probs[t] - b.log_probs[t]));
    worst = std::max<double>(worst, std::abs(a.entropies[t] - b.entropies[t]));
  }
  CHECK_NEAR(worst, 0, tolerance);
}

void test_surroundings(const Transformer& model, double tolerance, bool batch_invariant) {
  const GenerateRequest request = many_prompts(batch_invariant);
  const GenerateResult result = archer::generate(model, request, nullptr);
  CHECK(result.stats.most_running >= 64 && result.stats.num_preemptions == 0);
  const std::vector<Sample> expected = samples_of(result);
  const auto check_all = [&](const GenerateRequest& other, const std::vector<int64_t>& order) {
    const GenerateResult found = archer::generate(model, other, nullptr);
    const std::vector<Sample> samples = samples_of(found);
    for (size_t k = 0; k < order.size(); ++k) {
      for (size_t j = 0; j < 2; ++j) compare(samples[2 * k + j], expected[2 * order[k] + j], tolerance);
    }
    return found.stats;
  };
  std::vector<int64_t> order(64);
  std::iota(order.begin(), order.end(), 0);
  GenerateRequest other = request;
  for (const int64_t max_slots : {1, 7, 64}) {
    other.max_slots = max_slots;
    CHECK(check_all(other, order).most_running == max_slots);
  }
  other = request;
  for (int64_t i = 0; i < 64; ++i) other.expected_lengths.push_back(i % 5 == 0 ? std::nan("") : static_cast<double>(i * 37 % 64));
  other.max_slots = 9;
  check_all(other, order);
  other.kv_budget_bytes = 8 * page_bytes(model);
  CHECK(check_all(other, order).num_preemptions >= 3);
  std::vector<int64_t> shuffled(64);
  for (int64_t i = 0; i < 64; ++i) shuffled[i] = (i * 29 + 11) % 64;
  other = reordered(request, shuffled);
  other.max_slots = 20;
  check_all(other, shuffled);
  for (const int64_t i : {0, 21, 43, 63}) check_all(reordered(request, {i}), {i});
}

// Few tokens: tiny products on two threads are slow where another program runs.
void test_threads(const Transformer& model, bool batch_invariant) {
  GenerateRequest request = many_prompts(batch_invariant);
  request.max_new_tokens = 4;
  const std::vector<Sample> expected = samples_of(archer::generate(model, request, nullptr));
  at::set_num_threads(2);
  const std::vector<Sample> samples = samples_of(archer::generate(model, request, nullptr));
  at::set_num_threads(1);
  for (size_t i = 0; i < samples.size(); ++i) compare(samples[i], expected[i], 0);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  test_surroundings(make_model(at::kFloat, kVocabulary), 1e-4, false);
  archer::limit_cpu_isa(CpuIsa::avx512);  // no tiles
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    test_surroundings(make_model(dtype, kVocabulary), 0, true);
    test_threads(make_model(dtype, kVocabulary), true);
  }
  for (const CpuIsa isa : {CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (archer::limit_cpu_isa(isa) != isa) continue;
    CHECK(archer::linear_is_row_exact(at::kBFloat16) && archer::attention_is_row_exact(at::kBFloat16));
    test_surroundings(make_model(at::kBFloat16, kVocabulary), 0, false);
    test_threads(make_model(at::kBFloat16, kVocabulary), false);
  }
  return check::finish();
}
