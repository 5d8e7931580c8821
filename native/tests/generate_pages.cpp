// The memory of generation: who holds which page, prompts shared by their samples, and budgets that do not hold all sequences
// at once. What a budget changes is the time a response takes, not the response.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <utility>

#include "core/error.h"
#include "generate/page_pool.h"
#include "tests/generate_fixture.h"

#include "tests/expect_error.h"

using namespace fixture;

namespace {

void test_pool() {
  archer::PagePool pool(3);
  CHECK(pool.take() == 0 && pool.take() == 1 && pool.num_free() == 1 && pool.num_used() == 2);
  pool.share(0);
  CHECK(pool.is_shared(0) && !pool.is_shared(1));
  pool.release(0);
  CHECK(!pool.is_shared(0) && pool.num_used() == 2);
  pool.release(0);
  CHECK(pool.num_used() == 1 && pool.take() == 0 && pool.take() == 2 && pool.num_free() == 0);
  expect_error(archer::kInternal, "no page is free", [&] { pool.take(); });
  for (const int32_t page : {2, 0, 1}) pool.release(page);
  CHECK(pool.num_used() == 0 && pool.num_free() == 3 && pool.most_used() == 3);
  expect_error(archer::kInternal, "free", [&] { pool.release(1); });
  expect_error(archer::kInternal, "free", [&] { pool.share(1); });
}

// 130 tokens are two whole pages and a third that every sample goes on in.
void test_sharing(const Transformer& model) {
  GenerateRequest request = make_request({std::vector<int32_t>(130, 5)}, 8);
  request.stop.token_ids.clear();
  request.max_new_tokens = 20;
  const GenerateResult together = archer::generate(model, request, nullptr);
  CHECK(together.stats.most_pages == 2 + 8 && together.stats.prefill_tokens == 130);
  request.max_slots = 3;  // two or three samples run beside the open group, which keeps the page as the prompt left it
  const GenerateResult in_turn = archer::generate(model, request, nullptr);
  CHECK(in_turn.stats.most_pages == 2 + 3 + 1 && in_turn.ids == together.ids && in_turn.stats.prefill_tokens == 130);
  // A page holds a prompt of one token and 63 more; a prompt of whole pages leaves nothing to copy.
  request = make_request({{9}}, 4);
  request.stop.token_ids.clear();
  request.max_new_tokens = 64;  // of which the last is never fed back
  CHECK(archer::generate(model, request, nullptr).stats.most_pages == 4);
  ++request.max_new_tokens;
  CHECK(archer::generate(model, request, nullptr).stats.most_pages == 8);
  request = make_request({std::vector<int32_t>(128, 3)}, 4);
  request.stop.token_ids.clear();
  CHECK(archer::generate(model, request, nullptr).stats.most_pages == 2 + 4);
}

// The oldest sequence that has not ended gets a token in every step: others have no more than two between two of its own
// (one drawn from the prompt, one from the step).
void check_oldest_goes_on(const GenerateRequest& request, const std::vector<std::pair<int64_t, int32_t>>& stream,
                          const GenerateResult& result) {
  std::map<int64_t, int64_t> num_left, since_oldest;
  for (size_t r = 0; r + 1 < result.offsets.size(); ++r) num_left[r] = result.offsets[r + 1] - result.offsets[r];
  std::vector<int64_t> order;  // in which responses begin: prompts by their length
  std::vector<int64_t> prompts = {6, 5, 4, 3, 2, 1, 7, 0};
  for (const int64_t prompt : prompts) {
    for (int64_t j = 0; j < request.num_samples; ++j) order.push_back(prompt * request.num_samples + j);
  }
  size_t oldest = 0;
  bool begun = false;
  int64_t worst = 0;
  for (const auto& [response, id] : stream) {
    if (response == order[oldest]) {
      since_oldest.clear();
      begun = true;
    } else if (begun) {
      worst = std::max(worst, ++since_oldest[response]);
    }
    --num_left[response];
    while (oldest < order.size() && num_left[order[oldest]] == 0) ++oldest, begun = false, since_oldest.clear();
  }
  CHECK(oldest == order.size());
  CHECK(worst >= 1 && worst <= 2);
}

// Budgets from a single sequence up to nearly all: no preemption, some, or one after the other.
void test_budgets(const Transformer& model) {
  GenerateRequest request = make_long_request(3);
  const GenerateResult unbounded = archer::generate(model, request, nullptr);
  const int64_t all = unbounded.stats.most_pages;
  CHECK(unbounded.stats.num_preemptions == 0 && unbounded.stats.prefill_tokens == request.prompts.num_tokens());
  CHECK(all > 3 * kLongPages);
  int64_t fewest_steps = unbounded.stats.decode_steps, preemptions = 0;
  std::vector<std::pair<int64_t, int32_t>> stream;
  request.on_token = [&](int64_t prompt, int64_t sample, int32_t id) { stream.push_back({prompt * 3 + sample, id}); };
  for (const int64_t pages : {2 * all, all - 2, all / 2, 2 * kLongPages, kLongPages + 3, kLongPages + 1, kLongPages}) {
    stream.clear();
    request.kv_budget_bytes = pages * page_bytes(model) + page_bytes(model) - 1;
    const GenerateResult result = archer::generate(model, request, nullptr);
    std::printf("%ld of %ld pages: %ld steps, %ld preemptions, %ld tokens prefilled, %ld generated\n", pages, all,
                result.stats.decode_steps, result.stats.num_preemptions, result.stats.prefill_tokens,
                result.stats.generated_tokens);
    CHECK(result.stats.num_pages <= pages && result.stats.most_pages <= pages);
    CHECK(result.ids == unbounded.ids && result.finish_reasons == unbounded.finish_reasons);
    double worst = 0;
    for (size_t t = 0; t < result.ids.size(); ++t) {
      worst = std::max<double>(worst, std::abs(result.log_probs[t] - unbounded.log_probs[t]));
      worst = std::max<double>(worst, std::abs(result.entropies[t] - unbounded.entropies[t]));
    }
    CHECK_NEAR(worst, 0, model.compute_dtype() == at::kDouble ? 1e-6 : 1e-4);
    // What is prefilled again is bounded by what ended meanwhile: nobody is thrown out and brought back in turn.
    CHECK(result.stats.prefill_tokens <= 3 * (request.prompts.num_tokens() + result.stats.generated_tokens));
    CHECK(result.stats.decode_steps >= fewest_steps);
    fewest_steps = result.stats.decode_steps;
    preemptions += result.stats.num_preemptions;
    check_oldest_goes_on(request, stream, result);
  }
  CHECK(preemptions >= 10);
  request.kv_budget_bytes = kLongPages * page_bytes(model) - 1;
  stream.clear();
  expect_error(archer::kOom, "one sequence needs", [&] { archer::generate(model, request, nullptr); });
  CHECK(stream.empty());
}

// The budget of one sequence that is no longer than its prompt: the first sample takes the only page, which the prompt gives up.
void test_one_page(const Transformer& model) {
  GenerateRequest request = make_request(kPrompts, 3);
  const GenerateResult unbounded = archer::generate(model, request, nullptr);
  request.kv_budget_bytes = page_bytes(model);
  const GenerateResult result = archer::generate(model, request, nullptr);
  CHECK(result.ids == unbounded.ids && result.stats.most_pages == 1 && result.stats.most_running == 1);
  CHECK(result.stats.prefill_tokens > request.prompts.num_tokens() && result.stats.num_preemptions == 0);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  test_pool();
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat}) {
    const Transformer model = make_model(dtype, kVocabulary);
    test_sharing(model);
    test_budgets(model);
    test_one_page(model);
  }
  return check::finish();
}
