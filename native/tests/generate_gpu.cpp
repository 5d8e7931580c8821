// Generation on an emulated GPU: the scheduler of the processor over the decode engine, weights in place. Every draw is held
// against float64 logits of the same weights, bits against other slots and orders of threads, ids against the processor's.
#include "tests/gpu_model.h"
// After the emulation's primitives and libtorch.
#include <algorithm>
#include <cmath>
#include <memory>
#include <tuple>

#include "generate/gpu_weights.h"
#include "tests/expect_error.h"
#include "tests/generate_fixture.h"

using namespace archer;
using namespace fixture;

namespace {

ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = kVocabulary;
  config.hidden_size = 32;
  config.intermediate_size = 64;
  config.num_layers = 2;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 64;
  config.max_position_embeddings = 1024;
  config.qkv_bias = true;
  return config;
}

struct Models {
  Transformer cpu = make_model(tiny_config(), at::kBFloat16, 3, false);
  Transformer gpu = to_gpu(cpu);
  Transformer exact{tiny_config(), at::kDouble, false};

  Models() {
    for (const Parameter& parameter : cpu.parameters()) exact.load(parameter.name, parameter.compute);
  }
};

EmulatedDecodeDevice& device() { return static_cast<EmulatedDecodeDevice&>(*gpu_of(emulated::kGpu)->decode); }

// Prompts of 1 token, around the borders of pages, and two with the same beginning; more sequences than slots.
GenerateRequest mixed_request() {
  Prompts prompts;
  for (const int32_t length : {1, 63, 64, 130, 20}) {
    prompts.emplace_back();
    for (int32_t t = 0; t < length; ++t) prompts.back().push_back((7 * t * t + 11 * t + length) % kVocabulary);
  }
  GenerateRequest request = make_request(prompts, 3);
  request.max_new_tokens = 13;  // more than a visit draws
  request.stop.token_ids = {17, 42};
  request.max_slots = 6;
  return request;
}

// How far the draws of a result lie from those that float64 makes of the same weights: of the random number outside the stretch
// of its id, and of log-probs.
struct Distance {
  double number = 0, log_prob = 0;
};

Distance distance(const Transformer& exact, const GenerateRequest& request, const GenerateResult& result) {
  Distance worst;
  const std::vector<Sample> samples = samples_of(result);
  for (size_t r = 0; r < samples.size(); ++r) {
    const int64_t prompt = static_cast<int64_t>(r) / request.num_samples, length = request.prompts.length(prompt);
    const auto first = request.prompts.ids.begin() + request.prompts.offsets[prompt];
    std::vector<int32_t> ids(first, first + length);
    ids.insert(ids.end(), samples[r].ids.begin(), samples[r].ids.end());
    const at::Tensor logits = exact.logits(exact.hidden_states(pack({ids}), nullptr));
    const at::Tensor p = (logits / request.sampling.temperature).softmax(1);
    for (size_t t = 0; t < samples[r].ids.size(); ++t) {
      const at::Tensor of_token = p[length - 1 + static_cast<int64_t>(t)];
      const int64_t id = samples[r].ids[t];
      const double begin = of_token.narrow(0, 0, id).sum().item<double>(), end = begin + of_token[id].item<double>();
      const double u = sample_uniform(request.seed, request.step, request.prompt_keys[static_cast<size_t>(prompt)],
                                      static_cast<uint32_t>(r) % static_cast<uint32_t>(request.num_samples), static_cast<uint32_t>(t));
      worst.number = std::max({worst.number, begin - u, u - end});
      worst.log_prob = std::max(worst.log_prob, std::abs(static_cast<double>(samples[r].log_probs[t]) - std::log(end - begin)));
    }
  }
  return worst;
}

void same(const GenerateResult& a, const GenerateResult& b) {
  CHECK(a.ids == b.ids && a.offsets == b.offsets && a.finish_reasons == b.finish_reasons);
  CHECK(a.log_probs == b.log_probs && a.entropies == b.entropies);
}

void against_the_processor(const Models& models) {
  GenerateRequest request = mixed_request();
  // The more ids there are to choose from, the more borders between them can a rounding move.
  for (const auto& [temperature, top_k, least] : {std::tuple{0.0, -1, 14}, {1.0, 2, 8}, {1.0, -1, 2}}) {
    request.sampling.temperature = temperature;
    request.sampling.top_k = top_k;
    const GenerateResult result = generate(models.gpu, request, nullptr), of_cpu = generate(models.cpu, request, nullptr);
    const std::vector<Sample> samples = samples_of(result), expected = samples_of(of_cpu);
    int num_same = 0;
    for (size_t r = 0; r < samples.size(); ++r) num_same += samples[r].same_ids(expected[r]);
    std::printf("temperature %g, top_k %d: %d of %zu responses have the processor's ids\n", temperature, top_k, num_same,
                samples.size());
    CHECK(num_same >= least);
    if (temperature == 0.0 || top_k > 0) continue;
    const Distance worst = distance(models.exact, request, result), of_cpus = distance(models.exact, request, of_cpu);
    std::printf("  off float64 by %.2g in the random number and %.2g in log-probs, the processor by %.2g and %.2g\n", worst.number,
                worst.log_prob, of_cpus.number, of_cpus.log_prob);
    CHECK(worst.number < 2 * of_cpus.number + 1e-3 && worst.log_prob < 2 * of_cpus.log_prob + 1e-3);
  }
}

void surroundings(const Models& models) {
  GenerateRequest request = mixed_request();
  const GenerateResult result = generate(models.gpu, request, nullptr);
  for (const FinishReason reason : {FinishReason::stop, FinishReason::length}) {
    CHECK(std::ranges::count(result.finish_reasons, reason) > 0);
  }
  CHECK(result.stats.prefill_tokens == request.prompts.num_tokens() && result.stats.num_preemptions == 0);
  CHECK(result.stats.most_running == 6 && result.stats.generated_tokens == static_cast<int64_t>(result.ids.size()));

  // Slots, the way there and the order of threads leave no trace.
  for (const int64_t slots : {0, 1}) {
    request.max_slots = slots;
    use_emulated_gpu(slots == 0 ? gpu::emulation::Order::last_block : gpu::emulation::Order::reversed);
    same(generate(models.gpu, request, nullptr), result);
  }
}

// Sequences that give way to each other are prefilled again with what they have generated.
void small_memory(const Models& models) {
  GenerateRequest request = mixed_request();
  const int64_t page = static_cast<int64_t>(DecodeEngine::page_bytes(models.gpu.config()));
  request.stop.token_ids.clear();
  request.max_new_tokens = 40;
  request.kv_budget_bytes = 4 * page;
  const GenerateResult result = generate(models.gpu, request, nullptr);
  CHECK(result.stats.num_preemptions > 0 && result.stats.most_pages <= 4 && result.stats.generated_tokens == 15 * 40);
  CHECK(distance(models.exact, request, result).number < 0.02);
  request.kv_budget_bytes = 3 * page - 1;  // 130 + 40 - 1 positions
  expect_error(kOom, "one sequence needs", [&] { generate(models.gpu, request, nullptr); });
}

void stops(const Models& models) {
  GenerateRequest request = mixed_request();
  request.stop.token_ids.clear();
  const std::vector<Sample> unstopped = samples_of(generate(models.gpu, request, nullptr));
  auto token_bytes = std::make_shared<std::vector<std::string>>();
  for (int64_t id = 0; id < kVocabulary; ++id) token_bytes->push_back(id % 5 == 0 ? "" : id % 2 == 0 ? "ab" : "b;c");
  request.stop.token_bytes = token_bytes;
  request.stop.strings = {"cabab", "bbb"};  // only ever complete across borders of tokens
  const std::vector<Sample> stopped = samples_of(generate(models.gpu, request, nullptr));
  int num_stopped = 0;
  for (size_t r = 0; r < stopped.size(); ++r) {
    const std::vector<int32_t>& ids = stopped[r].ids;
    CHECK(ids.size() <= unstopped[r].ids.size() && std::equal(ids.begin(), ids.end(), unstopped[r].ids.begin()));
    std::string text;
    for (size_t t = 0; t < ids.size(); ++t) {
      const bool found = text.find("cabab") != std::string::npos || text.find("bbb") != std::string::npos;
      CHECK(!found);
      text += (*token_bytes)[static_cast<size_t>(ids[t])];
    }
    const bool found = text.find("cabab") != std::string::npos || text.find("bbb") != std::string::npos;
    CHECK(stopped[r].reason == (found ? FinishReason::stop_string : FinishReason::length) && (found || ids.size() == 13));
    num_stopped += found;
  }
  CHECK(num_stopped >= 5);

  // Every first token is the last, by its id or by the limit.
  request = mixed_request();
  request.max_new_tokens = 1;
  const GenerateResult one = generate(models.gpu, request, nullptr);
  CHECK(one.stats.decode_steps == 0 && one.ids.size() == 15);
  request.max_new_tokens = 13;
  for (int32_t id = 0; id < kVocabulary; ++id) request.stop.token_ids.push_back(id);
  const GenerateResult all_stop = generate(models.gpu, request, nullptr);
  CHECK(all_stop.stats.decode_steps == 0 && all_stop.ids == one.ids);
}

// An abort ends with the visit, takes nothing with it and gives everything back.
void aborts(const Models& models) {
  GenerateRequest request = mixed_request();
  const GenerateResult expected = generate(models.gpu, request, nullptr);
  for (const int64_t last : {0, 1, 40}) {
    JobControl control;
    control.cancelled = last == 0;
    int64_t num_tokens = 0;
    request.on_token = [&](int64_t, int64_t, int32_t) { control.cancelled = ++num_tokens >= last; };
    expect_error(kAborted, "aborted", [&] { generate(models.gpu, request, &control); });
    CHECK(num_tokens >= last && num_tokens < last + 6 * 8 && control.done == num_tokens);
    CHECK(device().num_allocations() == 0 && device().num_captured() == 0);
  }
  request.on_token = nullptr;
  same(generate(models.gpu, request, nullptr), expected);
}

// What is written into the model's own tensors is what the next generation reads.
void weights_in_place(Models& models) {
  const GpuWeights weights(models.gpu, 100);
  CHECK(weights.weights().head_VH == bf16(models.gpu.head().compute));
  const Transformer::Layer& layer = models.gpu.layers()[1];
  CHECK(weights.weights().layers[1].qkv_XH == bf16(models.gpu.weights()[static_cast<size_t>(layer.q)]));
  CHECK(weights.weights().layers[1].qkv_bias_X == bf16(models.gpu.weights()[static_cast<size_t>(layer.q_bias)]));

  const GenerateRequest request = mixed_request();
  const GenerateResult before = generate(models.gpu, request, nullptr);
  Models other;
  for (const Parameter& parameter : other.gpu.parameters()) {
    const at::Tensor value = parameter.master.to(at::kCPU) * (parameter.name == "model.norm.weight" ? 0.5 : 1.1);
    models.gpu.load(parameter.name, value);
    other.gpu.load(parameter.name, value);
  }
  const GenerateResult after = generate(models.gpu, request, nullptr);
  CHECK(after.ids != before.ids);
  same(after, generate(to_gpu(other.gpu), request, nullptr));
}

void refusals(const Models& models) {
  GenerateRequest request = mixed_request();
  request.batch_invariant = true;
  expect_error(kConfig, "batch_invariant", [&] { generate(models.gpu, request, nullptr); });
  request.batch_invariant = false;
  const Lora lora{2, 4.0, {"q_proj"}};
  const Transformer adapted = to_gpu(make_model(tiny_config(), at::kBFloat16, 3, true, lora), lora);
  expect_error(kConfig, "adapters", [&] { generate(adapted, request, nullptr); });
  same(generate(adapted.base(), request, nullptr), generate(Models().gpu, request, nullptr));
  gpu_of(emulated::kGpu)->decode = std::make_unique<EmulatedDecodeDevice>(gpu::emulation::Order::in_turn, false, size_t{1} << 18);
  expect_error(kOom, "are free", [&] { generate(models.gpu, request, nullptr); });
}

}  // namespace

int main() {
  at::set_num_threads(1);
  use_emulated_gpu(gpu::emulation::Order::in_turn);
  Models models;
  against_the_processor(models);
  surroundings(models);
  small_memory(models);
  stops(models);
  aborts(models);
  weights_in_place(models);
  refusals(models);
  return check::finish();
}
