// Generation against a reference without cache, batches or scheduler (generate_fixture.h). In float64 the ids must be equal for
// any number of slots, any order and any subset of the prompts.
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "tests/generate_fixture.h"

using namespace fixture;

namespace {

int64_t num_prompt_tokens(const GenerateRequest& request) { return request.prompts.num_tokens(); }

void test_against_reference(const Transformer& model) {
  std::vector<archer::SamplingOptions> all_options(3);
  all_options[1].temperature = 0.7;
  all_options[1].top_k = 9;
  all_options[1].top_p = 0.9;
  all_options[2].temperature = 0.0;
  for (const archer::SamplingOptions& options : all_options) {
    GenerateRequest request = make_request(kPrompts, 4);
    request.sampling = options;
    std::vector<Sample> expected;
    for (int64_t i = 0; i < 5; ++i) {
      for (uint32_t j = 0; j < 4; ++j) expected.push_back(reference(model, request, i, j));
    }
    for (const int64_t max_slots : {0, 1, 2, 3, 4, 5, 7, 11, 19, 20, 21}) {
      request.max_slots = max_slots;
      const GenerateResult result = archer::generate(model, request, nullptr);
      const std::vector<Sample> samples = samples_of(result);
      size_t longest = 0, num_equal = 0, num_tokens = 0;
      double worst = 0.0;
      for (size_t r = 0; r < samples.size() && r < expected.size(); ++r) {
        num_equal += samples[r].same_ids(expected[r]) ? 1 : 0;
        longest = std::max(longest, expected[r].ids.size());
        num_tokens += expected[r].ids.size();
        for (size_t t = 0; t < std::min(samples[r].ids.size(), expected[r].ids.size()); ++t) {
          worst = std::max<double>(worst, std::abs(samples[r].log_probs[t] - expected[r].log_probs[t]));
          worst = std::max<double>(worst, std::abs(samples[r].entropies[t] - expected[r].entropies[t]));
        }
      }
      CHECK(samples.size() == 20 && num_equal == 20);
      CHECK_NEAR(worst, 0.0, 1e-6);  // both are rounded to float32
      CHECK(result.stats.most_running <= (max_slots == 0 ? 20 : std::min<int64_t>(max_slots, 20)));
      CHECK(result.stats.prefill_tokens == num_prompt_tokens(request));  // once per group, whatever the slots
      CHECK(result.stats.generated_tokens == static_cast<int64_t>(num_tokens));
      // One slot decodes every token but the first of each response; enough slots take as many steps as the longest.
      if (max_slots == 1) CHECK(result.stats.decode_steps == static_cast<int64_t>(num_tokens) - 20);
      if (max_slots == 0) CHECK(result.stats.decode_steps == static_cast<int64_t>(longest) - 1);
      // Nobody waits for the slowest: a step with a free slot happens only once the queue is empty.
      if (max_slots > 0) {
        const int64_t fed = static_cast<int64_t>(num_tokens) - 20;
        CHECK(result.stats.decode_steps <= fed / max_slots + static_cast<int64_t>(longest));
      }
    }
  }
}

void test_order_subset_and_offset(const Transformer& model) {
  const GenerateRequest request = make_request(kPrompts, 3);
  const std::vector<Sample> samples = samples_of(archer::generate(model, request, nullptr));
  bool varied = false;
  for (size_t r = 0; r + 1 < samples.size(); ++r) varied = varied || !samples[r].same_ids(samples[r + 1]);
  CHECK(varied);
  const std::vector<std::vector<size_t>> selections = {{4, 3, 2, 1, 0}, {2, 0, 4}, {3}};
  for (const std::vector<size_t>& selection : selections) {
    Prompts prompts;
    for (const size_t i : selection) prompts.push_back(kPrompts[i]);
    GenerateRequest other = make_request(prompts, 2);
    for (size_t k = 0; k < selection.size(); ++k) other.prompt_keys[k] = request.prompt_keys[selection[k]];
    other.sample_offset = 1;
    other.max_slots = 4;
    const std::vector<Sample> selected = samples_of(archer::generate(model, other, nullptr));
    for (size_t k = 0; k < selection.size(); ++k) {
      for (size_t j = 0; j < 2; ++j) CHECK(selected[k * 2 + j].same_ids(samples[selection[k] * 3 + 1 + j]));
    }
  }
  // Another seed, step or key gives other samples; two threads give the same ones.
  for (int change = 0; change < 3; ++change) {
    GenerateRequest other = request;
    if (change == 0) other.seed += uint64_t{1} << 40;
    if (change == 1) ++other.step;
    if (change == 2) {
      for (uint32_t& key : other.prompt_keys) ++key;
    }
    CHECK(archer::generate(model, other, nullptr).ids != archer::generate(model, request, nullptr).ids);
  }
  at::set_num_threads(2);
  const std::vector<Sample> two_threads = samples_of(archer::generate(model, request, nullptr));
  at::set_num_threads(1);
  for (size_t r = 0; r < samples.size(); ++r) CHECK(two_threads[r].same_ids(samples[r]));
}

// Prompts start in the order of the lengths to expect; where one is unknown its own length counts. The result keeps the
// request's order.
void test_longest_first(const Transformer& model) {
  GenerateRequest request = make_request(kPrompts, 2);  // of 1, 7, 2, 13 and 3 tokens
  const GenerateResult expected = archer::generate(model, request, nullptr);
  request.max_slots = 1;
  std::vector<int64_t> started;
  request.on_token = [&](int64_t prompt, int64_t, int32_t) {
    if (std::find(started.begin(), started.end(), prompt) == started.end()) started.push_back(prompt);
  };
  CHECK(archer::generate(model, request, nullptr).ids == expected.ids);
  CHECK((started == std::vector<int64_t>{3, 1, 4, 2, 0}));
  started.clear();
  request.expected_lengths = {11.5, 2.0, std::nan(""), std::nan(""), 40.0};
  CHECK(archer::generate(model, request, nullptr).ids == expected.ids);
  CHECK((started == std::vector<int64_t>{4, 3, 0, 1, 2}));
}

void test_stops(const Transformer& model) {
  GenerateRequest request = make_request(kPrompts, 4);
  for (const Sample& sample : samples_of(archer::generate(model, request, nullptr))) {
    // A stop token ends its response and belongs to it; there is none before the end.
    for (size_t t = 0; t + 1 < sample.ids.size(); ++t) CHECK(!request.stop.is_stop_token(sample.ids[t]));
    CHECK(request.stop.is_stop_token(sample.ids.back()) == (sample.reason == FinishReason::stop));
    CHECK(sample.reason == FinishReason::stop || sample.ids.size() == 14);
  }
  for (const int64_t max_slots : {0, 1, 3}) {
    request.max_slots = max_slots;
    // Every first token stops: no decode step, although one slot must serve twenty responses.
    request.stop.token_ids.resize(kVocabulary);
    std::iota(request.stop.token_ids.begin(), request.stop.token_ids.end(), 0);
    GenerateResult result = archer::generate(model, request, nullptr);
    CHECK(result.stats.decode_steps == 0 && result.stats.generated_tokens == 20);
    CHECK(result.stats.prefill_tokens == num_prompt_tokens(request));
    CHECK(std::count(result.finish_reasons.begin(), result.finish_reasons.end(), FinishReason::stop) == 20);
    // The same by the length limit.
    request.stop.token_ids.clear();
    request.max_new_tokens = 1;
    const GenerateResult limited = archer::generate(model, request, nullptr);
    CHECK(limited.ids == result.ids && limited.stats.decode_steps == 0);
    CHECK(std::count(limited.finish_reasons.begin(), limited.finish_reasons.end(), FinishReason::length) == 20);
    // All sequences of the same length: they stop together.
    request.max_new_tokens = 6;
    result = archer::generate(model, request, nullptr);
    CHECK(result.stats.generated_tokens == 120);
    CHECK(result.stats.decode_steps == (max_slots == 0 ? 5 : max_slots == 1 ? 100 : 35));
    // The stop token at the last allowed place: it is a stop, not a cut.
    request.stop.token_ids = {result.ids[5]};
    const std::vector<Sample> samples = samples_of(archer::generate(model, request, nullptr));
    CHECK(samples[0].reason == FinishReason::stop);
    request = make_request(kPrompts, 4);
  }
}

void test_stop_strings(const Transformer& model) {
  auto token_bytes = std::make_shared<std::vector<std::string>>();
  for (int64_t id = 0; id < kVocabulary; ++id) token_bytes->push_back(id % 5 == 0 ? "" : id % 2 == 0 ? "ab" : "b;c");
  GenerateRequest request = make_request(kPrompts, 6);
  request.stop.token_ids.clear();
  const std::vector<Sample> unstopped = samples_of(archer::generate(model, request, nullptr));
  request.stop.token_bytes = token_bytes;
  request.stop.strings = {"cabab", "bbb"};  // longer than any token: only ever complete across borders
  int num_stopped = 0;
  for (const int64_t max_slots : {0, 2}) {
    request.max_slots = max_slots;
    const std::vector<Sample> stopped = samples_of(archer::generate(model, request, nullptr));
    for (size_t r = 0; r < stopped.size(); ++r) {
      // The first prefix of the unstopped response whose text holds a stop string, or all of it.
      std::string text;
      size_t length = 0;
      bool found = false;
      while (!found && length < unstopped[r].ids.size()) {
        text += (*token_bytes)[static_cast<size_t>(unstopped[r].ids[length++])];
        found = text.find("cabab") != std::string::npos || text.find("bbb") != std::string::npos;
      }
      CHECK(stopped[r].ids == std::vector<int32_t>(unstopped[r].ids.begin(), unstopped[r].ids.begin() + length));
      CHECK(stopped[r].reason == (found ? FinishReason::stop_string : FinishReason::length));
      num_stopped += found ? 1 : 0;
    }
  }
  CHECK(num_stopped >= 10);
}

void test_stop_matcher() {
  archer::StopConditions conditions;
  conditions.token_bytes = std::make_shared<std::vector<std::string>>(
      std::vector<std::string>{"", "\n", "\n\n", "User", ":", "Us", "er:", "x</answer>y", "\xe2\x82", "\xac"});
  conditions.strings = {"\nUser:", "</answer>", "\xe2\x82\xac"};
  conditions.validate(10);
  const auto length_until_stop = [&](const std::vector<int32_t>& ids) {
    archer::StopStringMatcher matcher;
    for (size_t t = 0; t < ids.size(); ++t) {
      if (matcher.push(ids[t], conditions)) return static_cast<int>(t) + 1;
    }
    return 0;
  };
  CHECK(length_until_stop({3, 4, 5, 6}) == 0);        // no line break before
  CHECK(length_until_stop({1, 3, 4}) == 3);
  CHECK(length_until_stop({2, 5, 0, 6, 1}) == 4);     // begins inside a token, goes on over an empty one
  CHECK(length_until_stop({1, 5, 1, 5, 6}) == 5);     // a false start
  CHECK(length_until_stop({5, 7}) == 2);              // in the middle of a token
  CHECK(length_until_stop({8, 8, 9}) == 3);           // a character split between tokens
}

void test_budget_progress_and_stream(const Transformer& model) {
  GenerateRequest request = make_request(kPrompts, 4);
  const GenerateResult unbounded = archer::generate(model, request, nullptr);
  archer::JobControl control;
  std::vector<std::vector<int32_t>> streamed(20);
  request.on_token = [&](int64_t prompt, int64_t sample, int32_t id) { streamed[prompt * 4 + sample].push_back(id); };
  const GenerateResult bounded = archer::generate(model, request, &control);
  CHECK(bounded.ids == unbounded.ids);
  CHECK(control.done == bounded.stats.generated_tokens && control.total == 20 * 14);
  const std::vector<Sample> samples = samples_of(bounded);
  for (size_t r = 0; r < 20; ++r) CHECK(streamed[r] == samples[r].ids);

  request.max_slots = 3;
  int num_tokens = 0;
  request.on_token = [&](int64_t, int64_t, int32_t) { control.cancelled = ++num_tokens >= 30; };
  std::string code = "none";
  try {
    archer::generate(model, request, &control);
  } catch (const archer::ArcherError& error) {
    code = error.code();
  }
  CHECK(code == archer::kAborted && num_tokens < 40);
}

std::string code_of(const Transformer& model, const GenerateRequest& request) {
  try {
    archer::generate(model, request, nullptr);
  } catch (const archer::ArcherError& error) {
    return error.code();
  }
  return "none";
}

template <typename Change>
std::string code_after(const Transformer& model, Change change) {
  GenerateRequest request = make_request(kPrompts, 2);
  change(request);
  return code_of(model, request);
}

void test_refusals(const Transformer& model) {
  using R = GenerateRequest;
  CHECK(code_after(model, [](R&) {}) == "none");
  CHECK(code_after(model, [](R& r) { r.prompts = {{}, {0}}; }) == archer::kShape);
  CHECK(code_after(model, [](R& r) { r.prompts.offsets[1] = 0; }) == archer::kShape);
  CHECK(code_after(model, [](R& r) { r.prompts.ids.push_back(1); }) == archer::kShape);
  CHECK(code_after(model, [](R& r) { r.prompts.ids[0] = kVocabulary; }) != "none");
  CHECK(code_after(model, [](R& r) { r.prompt_keys.pop_back(); }) == archer::kShape);
  CHECK(code_after(model, [](R& r) { r.expected_lengths = {3}; }) == archer::kShape);
  CHECK(code_after(model, [](R& r) { r.num_samples = 0; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.max_new_tokens = 0; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.max_slots = -1; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.sampling.top_p = 0.0; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.stop.token_ids = {kVocabulary}; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.stop.strings = {"x"}; }) == archer::kConfig);
  CHECK(code_after(model, [](R& r) { r.kv_budget_bytes = 1000; }) == archer::kOom);
}

// Rows of logits beyond 64 MiB come in chunks, prompts beyond 4,096 tokens in several prefills.
void test_large_pieces() {
  const Transformer wide = make_model(at::kDouble, 150000);
  Prompts prompts;
  for (int32_t i = 0; i < 64; ++i) prompts.push_back({i, 7 * i + 1});
  GenerateRequest request = make_request(prompts, 1);
  request.max_new_tokens = 3;
  const GenerateResult chunked = archer::generate(wide, request, nullptr);
  request.max_slots = 9;
  CHECK(archer::generate(wide, request, nullptr).ids == chunked.ids);

  const Transformer narrow = make_model(at::kDouble, kVocabulary);
  std::vector<int32_t> long_prompt(1500);
  for (size_t t = 0; t < long_prompt.size(); ++t) long_prompt[t] = static_cast<int32_t>(t * t % kVocabulary);
  std::vector<int32_t> longest(8190);  // with two more tokens all positions of the model, and more than a prefill takes
  for (size_t t = 0; t < longest.size(); ++t) longest[t] = static_cast<int32_t>(t * t % 59);
  request = make_request({long_prompt, {1, 2}, long_prompt, longest, long_prompt, {3}}, 1);
  request.max_new_tokens = 2;
  const std::vector<Sample> samples = samples_of(archer::generate(narrow, request, nullptr));
  for (int64_t i = 0; i < 6; ++i) CHECK(samples[i].same_ids(reference(narrow, request, i, 0)));
}

void test_broken_weights() {
  Transformer model = make_model(at::kFloat, kVocabulary);
  CHECK(code_of(model, make_request(kPrompts, 2)) == "none");
  at::Tensor norm = at::empty(model.expected_shape("model.norm.weight"), at::TensorOptions().dtype(at::kFloat));
  norm.fill_(std::nan(""));
  model.load("model.norm.weight", norm);
  CHECK(code_of(model, make_request(kPrompts, 2)) == archer::kNumeric);
}

}  // namespace

int main() {
  at::set_num_threads(1);  // the model is too small for two, and waiting threads are slow on a busy machine
  const Transformer model = make_model(at::kDouble, kVocabulary);
  test_against_reference(model);
  test_order_subset_and_offset(model);
  test_longest_first(model);
  test_stops(model);
  test_stop_strings(model);
  test_stop_matcher();
  test_budget_progress_and_stream(model);
  test_refusals(model);
  test_large_pieces();
  test_broken_weights();
  return check::finish();
}
