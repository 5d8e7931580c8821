// An abort takes effect within one layer's work, in prefill and in decoding, and leaves nothing behind.
#include <ATen/Parallel.h>

#include <chrono>
#include <thread>

#include "core/attention.h"
#include "core/error.h"
#include "tests/generate_fixture.h"

#include "tests/expect_error.h"

using namespace fixture;

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// One long prompt. What it takes alone is compared with what passes between the abort and its effect.
void test_prefill(at::ScalarType dtype) {
  const Transformer model = make_model(dtype, kVocabulary, 24);
  std::vector<int32_t> prompt(2500);
  for (size_t t = 0; t < prompt.size(); ++t) prompt[t] = static_cast<int32_t>(t * t % kVocabulary);
  GenerateRequest request = make_request({prompt}, 1);
  request.max_new_tokens = 1;
  Clock::time_point start = Clock::now();
  const GenerateResult expected = archer::generate(model, request, nullptr);
  const double whole = seconds_since(start);
  archer::JobControl control;
  std::thread aborter([&] {
    std::this_thread::sleep_for(std::chrono::duration<double>(whole / 4));
    start = Clock::now();
    control.cancelled = true;
  });
  expect_error(archer::kAborted, "aborted", [&] { archer::generate(model, request, &control); });
  const Clock::time_point end = Clock::now();
  aborter.join();
  const double delay = std::chrono::duration<double>(end - start).count();
  std::printf("%s: prefill takes %.3f s, the abort took effect after %.3f s\n", c10::toString(dtype), whole, delay);
  CHECK(delay < whole / 3);  // 24 layers: one is about 1/24
  CHECK(control.done == 0);
  CHECK(archer::generate(model, request, nullptr).ids == expected.ids);
}

// Aborted at any token: those of the same step still come, no later one. Then the same request runs as if nothing had been.
void test_decoding(const Transformer& model) {
  GenerateRequest request = make_long_request(2);
  const GenerateResult expected = archer::generate(model, request, nullptr);
  for (const int64_t budget : {int64_t{0}, (kLongPages + 4) * page_bytes(model)}) {
    request.kv_budget_bytes = budget;
    for (const int64_t last : {1, 16, 17, 100, 700}) {
      archer::JobControl control;
      int64_t num_tokens = 0;
      request.on_token = [&](int64_t, int64_t, int32_t) { control.cancelled = ++num_tokens >= last; };
      expect_error(archer::kAborted, "aborted", [&] { archer::generate(model, request, &control); });
      CHECK(num_tokens >= last && num_tokens < last + 16 && control.done == num_tokens);
    }
    request.on_token = nullptr;
    CHECK(archer::generate(model, request, nullptr).ids == expected.ids);
  }
}

void test_before_the_start(const Transformer& model) {
  archer::JobControl control;
  control.cancelled = true;
  GenerateRequest request = make_request(kPrompts, 2);
  request.on_token = [](int64_t, int64_t, int32_t) { CHECK(false); };
  expect_error(archer::kAborted, "aborted", [&] { archer::generate(model, request, &control); });
}

}  // namespace

int main() {
  at::set_num_threads(1);
  test_prefill(at::kDouble);
  if (archer::attention_is_row_exact(at::kBFloat16)) test_prefill(at::kBFloat16);
  const Transformer model = make_model(at::kDouble, kVocabulary);
  test_decoding(model);
  test_before_the_start(model);
  return check::finish();
}
