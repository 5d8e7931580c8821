// The decode engine over the emulated GPU: logits against the CPU's bfloat16 decoding and a float64 model, draws
// against the CPU's sampler, and what must hold around a visit.
#include "tests/emulated_decode_device.h"
// After the emulation's primitives.
#include <ATen/ATen.h>

#include "generate/sampler.h"
#include "model/transformer.h"
#include "tests/decode_engine_cases.h"
#include "tests/expect_error.h"

using namespace archer;
using decode_cases::Bits;
using decode_cases::DeviceModel;
using decode_cases::HostModel;

namespace {

constexpr int32_t kPositions = 700, kNumPages = 60, kNewTokens = 100;
constexpr uint64_t kSeed = 11;
constexpr uint32_t kStep = 3;

at::Tensor tensor_of(const Bits& values, const std::vector<int64_t>& shape) {
  return at::from_blob(const_cast<uint16_t*>(values.data()), shape, at::kBFloat16);
}

Transformer cpu_model(const HostModel& model, at::ScalarType dtype) {
  Transformer transformer(model.config, dtype, false);
  for (const auto& [name, values] : model.tensors) transformer.load(name, tensor_of(values, model.shapes.at(name)));
  return transformer;
}

// Prompts of these lengths, in pages from the last one down: no page has the number of its sequence.
struct Prompts {
  std::vector<int32_t> lengths, first_tokens;
  PackedSequences packed;
  std::vector<PageTable> pages;

  Prompts(std::vector<int32_t> of_lengths, int64_t vocab_size) : lengths(std::move(of_lengths)) {
    decode_cases::Random random(5);
    int32_t next_page = kNumPages - 1;
    packed.offsets.push_back(0);
    for (const int32_t length : lengths) {
      for (int32_t t = 0; t < length; ++t)
        packed.ids.push_back(static_cast<int32_t>(random.next() % static_cast<uint32_t>(vocab_size)));
      packed.offsets.push_back(static_cast<int32_t>(packed.ids.size()));
      first_tokens.push_back(static_cast<int32_t>(random.next() % static_cast<uint32_t>(vocab_size)));
      pages.emplace_back();
      for (int64_t page = 0; page < pages_for(length + kNewTokens); ++page) pages.back().push_back(next_page--);
    }
  }
  KvCache prefill(const Transformer& model) const {
    KvCache cache(model.config(), model.compute_dtype(), kNumPages);
    std::vector<PrefillTarget> targets;
    for (const PageTable& table : pages) targets.push_back({table});
    model.prefill(packed, targets, cache, nullptr);
    return cache;
  }
};

// An engine whose pages are those of the CPU's cache, and the prompts' sequences.
struct Setup {
  EmulatedDecodeDevice device;
  DeviceModel weights;
  DecodeEngine engine;
  std::vector<DecodeSequence> sequences;

  Setup(const HostModel& model, const DecodeLimits& limits, const KvCache& cache, const Prompts& prompts,
        gpu::emulation::Order order = gpu::emulation::Order::in_turn)
      : device(order), weights(device, model), engine(device, model.config, weights.weights(), limits) {
    for (size_t i = 0; i < prompts.lengths.size(); ++i) {
      DecodeSequence sequence;
      sequence.token = prompts.first_tokens[i];
      sequence.position = prompts.lengths[i];
      sequence.budget = kNewTokens;
      sequence.prompt_key = static_cast<uint32_t>(40 + i);
      sequence.sample_index = static_cast<uint32_t>(i % 2);
      sequence.num_generated = 1;
      sequence.pages = prompts.pages[i];
      sequences.push_back(sequence);
    }
    // The CPU's layout.
    device.upload(engine.layer_cache(0).keys, cache.keys[0].const_data_ptr(), engine.cache_bytes());
  }

  std::vector<DecodeSequence*> all() {
    std::vector<DecodeSequence*> pointers;
    for (DecodeSequence& sequence : sequences) pointers.push_back(&sequence);
    return pointers;
  }
  at::Tensor logits(int64_t vocab_size) {
    const auto B = static_cast<int64_t>(sequences.size());
    const at::Tensor rows = at::empty({B, engine.logits_stride()}, at::kFloat);
    device.download(rows.mutable_data_ptr(), engine.logits(), static_cast<size_t>(rows.numel()) * 4);
    device.synchronize();
    return rows.narrow(1, 0, vocab_size).contiguous();
  }
};

DecodeLimits limits_of(int32_t tokens_per_visit) {
  DecodeLimits limits;
  limits.max_rows = 8;
  limits.max_positions = kPositions;
  limits.num_pages = kNumPages;
  limits.tokens_per_visit = tokens_per_visit;
  return limits;
}

double relative_error(const at::Tensor& got, const at::Tensor& exact) {
  return ((got.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

void agrees_with_the_cpu(bool qwen2) {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(qwen2), kPositions, 1);
  const Transformer cpu = cpu_model(model, at::kBFloat16), exact = cpu_model(model, at::kDouble);
  const Prompts prompts({1, 63, 64, 300, 130}, model.config.vocab_size);
  KvCache cpu_cache = prompts.prefill(cpu), exact_cache = prompts.prefill(exact);
  Setup setup(model, limits_of(1), cpu_cache, prompts);
  SampleSettings settings;
  settings.temperature = 0.7;
  setup.engine.set_sampling(settings);
  SamplingOptions options;
  options.temperature = 0.7;
  double worst_logits = 0, worst_cpu = 0;
  for (int step = 0; step < 4; ++step) {
    std::vector<int32_t> ids, positions;
    std::vector<Pages> pages;
    std::vector<Draw> draws;
    for (size_t i = 0; i < setup.sequences.size(); ++i) {
      const DecodeSequence& sequence = setup.sequences[i];
      ids.push_back(sequence.token);
      positions.push_back(sequence.position);
      pages.push_back(sequence.pages);
      draws.push_back({static_cast<int64_t>(i), sequence.prompt_key, sequence.sample_index, sequence.num_generated});
    }
    setup.engine.visit(setup.all(), kSeed, kStep);
    const at::Tensor got = setup.logits(model.config.vocab_size);
    const at::Tensor of_cpu = cpu.logits(cpu.decode(ids, positions, pages, cpu_cache, nullptr));
    const at::Tensor of_exact = exact.logits(exact.decode(ids, positions, pages, exact_cache, nullptr));
    for (int64_t row = 0; row < got.size(0); ++row) {
      const double error = relative_error(got[row], of_exact[row]);
      const double cpu_error = relative_error(of_cpu[row], of_exact[row]);
      worst_logits = std::max(worst_logits, error);
      worst_cpu = std::max(worst_cpu, cpu_error);
      CHECK(error < 2 * cpu_error + 1e-3);
    }
    const std::vector<SampledToken> tokens = sample(got, options, draws, kSeed, kStep);
    for (size_t i = 0; i < tokens.size(); ++i) {
      const DecodeSequence& sequence = setup.sequences[i];
      CHECK(sequence.ids == std::vector<int32_t>{tokens[i].id});
      CHECK(sequence.token == tokens[i].id && sequence.position == positions[i] + 1);
      CHECK_NEAR(sequence.log_probs.at(0), tokens[i].logp, 1e-5);
      CHECK_NEAR(sequence.entropies.at(0), tokens[i].entropy, 1e-5);
    }
  }
  CHECK(worst_cpu < 0.05);
  std::printf("logits' relative distance from float64: engine %.3g, the CPU %.3g\n", worst_logits, worst_cpu);
}

// Prompts prefilled by the engine, of which the last shares two pages with the one before it: logits behind them, tokens drawn
// from those, and a step that reads the pages. Pieces and the order of threads leave no trace.
void prefills(bool qwen2) {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(qwen2), kPositions, 5);
  const Transformer cpu = cpu_model(model, at::kBFloat16), exact = cpu_model(model, at::kDouble);
  Prompts prompts({1, 64, 63, 200, 130}, model.config.vocab_size);
  constexpr int32_t kShared = 2 * kPagePositions;
  std::copy_n(prompts.packed.ids.begin() + prompts.packed.offsets[3], kShared,
              prompts.packed.ids.begin() + prompts.packed.offsets[4]);
  std::copy_n(prompts.pages[3].begin(), 2, prompts.pages[4].begin());
  const KvCache nothing(model.config, at::kBFloat16, kNumPages);

  const auto run = [&](int32_t prefill_tokens, gpu::emulation::Order order) {
    DecodeLimits limits = limits_of(2);
    limits.prefill_tokens = prefill_tokens;
    Setup setup(model, limits, nothing, prompts, order);
    std::vector<DecodePrompt> all;
    for (size_t i = 0; i < prompts.lengths.size(); ++i) {
      all.push_back({std::span(prompts.packed.ids).subspan(static_cast<size_t>(prompts.packed.offsets[i]),
                                                           static_cast<size_t>(prompts.lengths[i])),
                     prompts.pages[i], i == 4 ? kShared : 0});
    }
    int num_pieces = 0;
    setup.engine.prefill(all, [&] { ++num_pieces; });
    CHECK(num_pieces == (458 - kShared + prefill_tokens - 1) / prefill_tokens);
    std::vector<at::Tensor> results{setup.logits(model.config.vocab_size)};
    setup.engine.keep_logits(3);

    std::vector<Draw> draws;
    std::vector<DecodeDraw> on_device;
    for (const int32_t prompt : {0, 1, 2, 3, 4, 3, 3, 3, 3, 0}) {  // more than rows
      const auto sample_index = static_cast<uint32_t>(draws.size());
      draws.push_back({prompt, 7, sample_index, 0});
      on_device.push_back({prompt, 7, sample_index, 0});
    }
    const auto same_draws = [&] {
      const std::vector<SampledToken> tokens = sample(results[0], {}, draws, kSeed, kStep);
      const std::vector<SampledToken> drawn = setup.engine.draw(on_device, kSeed, kStep);
      CHECK(drawn.size() == tokens.size());
      for (size_t i = 0; i < drawn.size(); ++i) {
        CHECK(drawn[i].id == tokens[i].id);
        CHECK_NEAR(drawn[i].logp, tokens[i].logp, 1e-5);
        CHECK_NEAR(drawn[i].entropy, tokens[i].entropy, 1e-5);
      }
    };
    same_draws();
    setup.engine.visit(setup.all(), kSeed, kStep);
    for (const DecodeSequence& sequence : setup.sequences) {
      results.push_back(at::tensor(sequence.log_probs));
      results.push_back(at::tensor(sequence.ids));
    }
    results.push_back(setup.logits(model.config.vocab_size));
    draws = {{3, 8, 0, 0}};
    on_device = {{setup.engine.kept_prompt(), 8, 0, 0}};
    same_draws();
    return results;
  };
  const std::vector<at::Tensor> results = run(4096, gpu::emulation::Order::in_turn);
  for (const int32_t prefill_tokens : {50, 128}) {
    const std::vector<at::Tensor> again = run(prefill_tokens, gpu::emulation::Order::last_block);
    for (size_t i = 0; i < results.size(); ++i) CHECK(again[i].equal(results[i]));
  }

  KvCache cpu_cache(model.config, at::kBFloat16, kNumPages), exact_cache(model.config, at::kDouble, kNumPages);
  std::vector<PrefillTarget> targets;
  for (const PageTable& table : prompts.pages) targets.push_back({table});
  const at::Tensor of_cpu = cpu.logits(cpu.prefill(prompts.packed, targets, cpu_cache, nullptr));
  const at::Tensor of_exact = exact.logits(exact.prefill(prompts.packed, targets, exact_cache, nullptr));
  for (int64_t row = 0; row < of_exact.size(0); ++row) {
    CHECK(relative_error(results[0][row], of_exact[row]) < 2 * relative_error(of_cpu[row], of_exact[row]) + 1e-3);
  }
  // The visit's second step: its first token was the engine's own.
  std::vector<int32_t> positions = prompts.lengths, first_ids, tokens = prompts.first_tokens;
  std::vector<Pages> pages(prompts.pages.begin(), prompts.pages.end());
  exact.decode(tokens, positions, pages, exact_cache, nullptr);
  for (size_t i = 0; i < tokens.size(); ++i) {
    first_ids.push_back(results[2 + 2 * i][0].item<int32_t>());
    ++positions[i];
  }
  const at::Tensor second = exact.logits(exact.decode(first_ids, positions, pages, exact_cache, nullptr));
  double worst = 0;
  for (int64_t row = 0; row < second.size(0); ++row) {
    worst = std::max(worst, relative_error(results.back()[row], second[row]));
  }
  CHECK(worst < 0.05);
  std::printf("prefill: logits two tokens behind the prompts within %.3g of float64\n", worst);
}

// A prompt that fills every position, and the same one whose keys and values are there already: the last token is computed
// for its logits, and writes nothing.
void longest_prompt() {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(false), kPositions, 6);
  const Prompts prompts({kPositions}, model.config.vocab_size);
  Setup setup(model, limits_of(4), KvCache(model.config, at::kBFloat16, kNumPages), prompts);
  const std::span ids(prompts.packed.ids);
  const auto cache = [&] {
    std::vector<uint16_t> bits(setup.engine.cache_bytes() / sizeof(uint16_t));
    setup.device.download(bits.data(), setup.engine.layer_cache(0).keys, setup.engine.cache_bytes());
    setup.device.synchronize();
    return bits;
  };
  setup.engine.prefill({{ids, prompts.pages[0], 0}});
  const at::Tensor logits = setup.logits(model.config.vocab_size);
  const std::vector<uint16_t> filled = cache();
  setup.engine.prefill({{ids, prompts.pages[0], kPositions}});
  CHECK(setup.logits(model.config.vocab_size).equal(logits) && logits.isfinite().all().item<bool>());
  CHECK(cache() == filled);

  const std::vector<int32_t> too_long(kPositions + 1, 1);
  expect_error(kShape, "prompt 0 has 701 tokens", [&] { setup.engine.prefill({{too_long, prompts.pages[0], 0}}); });
  expect_error(kShape, "prompt 0 has 0 tokens", [&] { setup.engine.prefill({{{}, prompts.pages[0], 0}}); });
  const Pages too_few = Pages(prompts.pages[0]).first(10);
  expect_error(kShape, "10 pages and needs 11", [&] { setup.engine.prefill({{ids, too_few, 0}}); });
  expect_error(kShape, "9 prompts", [&] { setup.engine.prefill(std::vector<DecodePrompt>(9, {ids, too_few, 0})); });
}

// Bits do not depend on how many tokens a visit draws, on the sequences around, on the order of threads, or on pages.
void same_tokens_whatever_happens_around() {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(true), kPositions, 2);
  const Transformer cpu = cpu_model(model, at::kBFloat16);
  const Prompts prompts({70, 1, 64, 250, 9}, model.config.vocab_size);
  const KvCache cache = prompts.prefill(cpu);
  const auto tokens_of = [&](int32_t per_visit, const std::vector<size_t>& groups, gpu::emulation::Order order) {
    Setup setup(model, limits_of(per_visit), cache, prompts, order);
    std::vector<std::pair<std::vector<int32_t>, std::vector<float>>> drawn(setup.sequences.size());
    size_t first = 0;
    for (const size_t size : groups) {
      std::vector<DecodeSequence*> group;
      for (size_t i = first; i < first + size; ++i) group.push_back(&setup.sequences[i]);
      for (int32_t done = 0; done < 6; done += per_visit) {
        const int waits = setup.device.num_synchronisations, replays = setup.device.num_replays;
        setup.engine.visit(group, kSeed, kStep);
        CHECK(setup.device.num_synchronisations == waits + 1 && setup.device.num_replays == replays + per_visit);
        for (size_t i = first; i < first + size; ++i) {
          const DecodeSequence& sequence = setup.sequences[i];
          drawn[i].first.insert(drawn[i].first.end(), sequence.ids.begin(), sequence.ids.end());
          drawn[i].second.insert(drawn[i].second.end(), sequence.log_probs.begin(), sequence.log_probs.end());
        }
      }
      first += size;
    }
    for (const auto& [ids, log_probs] : drawn) CHECK(ids.size() == 6 && log_probs.size() == 6);
    return drawn;
  };
  const auto reference = tokens_of(6, {5}, gpu::emulation::Order::in_turn);
  CHECK(tokens_of(1, {5}, gpu::emulation::Order::reversed) == reference);
  CHECK(tokens_of(3, {1, 2, 2}, gpu::emulation::Order::last_block) == reference);
}

// Budgets and stop tokens end a sequence within a visit; the others are not touched.
void endings() {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(true), kPositions, 3);
  const Transformer cpu = cpu_model(model, at::kBFloat16);
  const Prompts prompts({20, 30, 40}, model.config.vocab_size);
  const KvCache cache = prompts.prefill(cpu);
  Setup free_running(model, limits_of(6), cache, prompts);
  free_running.engine.visit(free_running.all(), kSeed, kStep);
  const auto& reference = free_running.sequences;

  DecodeLimits limits = limits_of(6);
  limits.stop_ids = {reference[0].ids[2]};
  Setup setup(model, limits, cache, prompts);
  setup.sequences[1].budget = 4;
  setup.engine.visit(setup.all(), kSeed, kStep);
  for (size_t i = 0; i < 3; ++i) {
    const DecodeSequence& sequence = setup.sequences[i];
    const std::vector<int32_t>& ids = reference[i].ids;
    const std::vector<float>& log_probs = reference[i].log_probs;
    const auto stop = std::find(ids.begin(), ids.end(), limits.stop_ids[0]);
    size_t length = i == 1 ? 4 : 6;
    RowState state = i == 1 ? RowState::full : RowState::running;
    if (static_cast<size_t>(stop - ids.begin()) < length) {
      length = static_cast<size_t>(stop - ids.begin()) + 1;
      state = RowState::stopped;
    }
    CHECK(sequence.state == state);
    const auto count = static_cast<std::ptrdiff_t>(length);
    CHECK(sequence.ids == std::vector<int32_t>(ids.begin(), ids.begin() + count));
    CHECK(sequence.log_probs == std::vector<float>(log_probs.begin(), log_probs.begin() + count));
    CHECK(sequence.num_generated == 1 + length && sequence.position == prompts.lengths[i] + count);
  }
  CHECK(setup.sequences[0].state == RowState::stopped && setup.sequences[0].ids.size() <= 3);
  expect_error(kShape, "ended", [&] { setup.engine.visit({&setup.sequences[0]}, kSeed, kStep); });
}

void refusals() {
  const HostModel model = decode_cases::random_model(decode_cases::small_config(true), kPositions, 4);
  const Transformer cpu = cpu_model(model, at::kBFloat16);
  const Prompts prompts({20}, model.config.vocab_size);
  const KvCache cache = prompts.prefill(cpu);
  Setup setup(model, limits_of(4), cache, prompts);
  const size_t num_allocations = setup.device.num_allocations();
  const auto refuses = [&](const char* code, const char* text, auto change) {
    DecodeSequence changed = setup.sequences[0];
    change(changed);
    expect_error(code, text, [&] { setup.engine.visit({&changed}, kSeed, kStep); });
  };
  refuses(kShape, "vocabulary", [](DecodeSequence& s) { s.token = 203; });
  refuses(kShape, "reach position", [](DecodeSequence& s) { s.position = kPositions - 3; });
  refuses(kShape, "pages", [](DecodeSequence& s) { s.pages.clear(); });
  refuses(kShape, "names page 60", [](DecodeSequence& s) { s.pages[0] = 60; });
  expect_error(kShape, "9 sequences", [&] {
    setup.engine.visit(std::vector<DecodeSequence*>(9, &setup.sequences[0]), kSeed, kStep);
  });
  setup.engine.visit({}, kSeed, kStep);
  setup.engine.prefill({});
  CHECK(setup.engine.draw({}, kSeed, kStep).empty());

  const auto refuses_to_begin = [&](const char* code, const char* text, auto change) {
    EmulatedDecodeDevice device(gpu::emulation::Order::in_turn, false, size_t{4} << 20);
    ModelConfig config = model.config;
    DecodeLimits limits = limits_of(4);
    change(config, limits);
    expect_error(code, text, [&] { DecodeEngine(device, config, setup.weights.weights(), limits); });
    CHECK(device.num_allocations() == 0);
  };
  refuses_to_begin(kModel, "head_dim", [](ModelConfig& config, DecodeLimits&) { config.head_dim = 96; });
  refuses_to_begin(kModel, "share", [](ModelConfig& config, DecodeLimits&) { config.num_heads = 18; });
  refuses_to_begin(kModel, "multiples of 8", [](ModelConfig& config, DecodeLimits&) { config.hidden_size = 60; });
  refuses_to_begin(kModel, "layers", [](ModelConfig& config, DecodeLimits&) { config.num_layers = 3; });
  refuses_to_begin(kConfig, "max_rows", [](ModelConfig&, DecodeLimits& limits) { limits.max_rows = 257; });
  refuses_to_begin(kOom, "bytes are free", [](ModelConfig&, DecodeLimits& limits) { limits.num_pages = 10000; });

  // Logits that are not finite name their sequence; a healthy one beside it goes on, and no memory was taken since.
  uint16_t nan[8];
  std::fill_n(nan, 8, uint16_t{0x7FC0});
  const int64_t first_value = setup.sequences[0].pages[0] * setup.engine.layer_cache(1).page_stride;
  setup.device.upload(setup.engine.layer_cache(1).values + first_value, nan, sizeof nan);
  DecodeSequence healthy = setup.sequences[0];
  healthy.position = 0;
  healthy.pages = {3};
  expect_error(kNumeric, "prompt key 40", [&] { setup.engine.visit({&healthy, &setup.sequences[0]}, kSeed, kStep); });
  CHECK(setup.sequences[0].state == RowState::faulty && setup.sequences[0].ids.empty());
  CHECK(healthy.state == RowState::running && healthy.ids.size() == 4);
  CHECK(setup.device.num_allocations() == num_allocations);
}

// What cuda/decode_gpu.cpp does with a GPU in the place of the first device.
void agrees_with_itself(bool qwen2) {
  EmulatedDecodeDevice device(gpu::emulation::Order::last_block), reference;
  decode_cases::check_engine(device, reference, qwen2);
  decode_cases::check_generation(device, reference, qwen2);
}

}  // namespace

int main() {
  agrees_with_the_cpu(true);
  agrees_with_the_cpu(false);
  prefills(true);
  prefills(false);
  longest_prompt();
  same_tokens_whatever_happens_around();
  endings();
  refusals();
  agrees_with_itself(true);
  agrees_with_itself(false);
  return check::finish();
}
