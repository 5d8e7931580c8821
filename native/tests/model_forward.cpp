// The packed forward, prefill and decode agree with each other, whatever shares the pack or the batch.
#include "core/linear.h"
#include "model_fixture.h"

#include "expect_error.h"

using namespace archer;
using namespace fixture;

namespace {

// A sequence's hidden states are those it has alone.
void packing(const Flavour& flavour, at::ScalarType dtype, double tolerance) {
  const Transformer model = make_model(flavour.config, dtype, 1, false);
  const PackedSequences all = make_sequences({5, 17, 1, 16, 3, 40, 15}, flavour.config.vocab_size, 2);
  const at::Tensor packed_TH = model.hidden_states(all, false, nullptr);
  CHECK(packed_TH.scalar_type() == dtype && !packed_TH.requires_grad());
  for (size_t i = 0; i + 1 < all.offsets.size(); ++i) {
    const at::Tensor alone = model.hidden_states(part(all, i, i + 1), false, nullptr);
    CHECK_NEAR(relative_error(packed_TH.slice(0, all.offsets[i], all.offsets[i + 1]), alone), 0, tolerance);
  }
}

// Causality, by hand: a changed token changes its own and later states only.
void causality(const Flavour& flavour) {
  const Transformer model = make_model(flavour.config, at::kDouble, 1, false);
  PackedSequences sequences = make_sequences({9, 9}, flavour.config.vocab_size, 3);
  const at::Tensor before = model.hidden_states(sequences, false, nullptr);
  sequences.ids[4] = (sequences.ids[4] + 1) % static_cast<int32_t>(flavour.config.vocab_size);
  const at::Tensor changed = (model.hidden_states(sequences, false, nullptr) - before).abs().amax(1);
  for (int t = 0; t < 18; ++t) {
    const double difference = changed[t].item().toDouble();
    CHECK((t >= 4 && t < 9) ? (difference > 1e-6) : (difference < 1e-12));
  }
}

// Prompts prefilled into scattered slots, one of them copied to a further slot, then tokens fed one by one to slots at
// different positions: every hidden state is that of the packed forward.
void generation(const Flavour& flavour, at::ScalarType dtype, double tolerance) {
  const int64_t vocab = flavour.config.vocab_size;
  const Transformer model = make_model(flavour.config, dtype, 1, false);
  const std::vector<int> prompt_lengths = {4, 11, 1};
  const PackedSequences full = make_sequences({24, 31, 21}, vocab, 5);
  PackedSequences prompts{{}, {0}};
  for (size_t i = 0; i < 3; ++i) {
    const auto first = full.ids.begin() + full.offsets[i];
    prompts.ids.insert(prompts.ids.end(), first, first + prompt_lengths[i]);
    prompts.offsets.push_back(static_cast<int32_t>(prompts.ids.size()));
  }
  // Slot 2 holds a copy of prompt 1 and goes on with its own tokens.
  PackedSequences fork = part(full, 1, 2);
  for (size_t t = 11; t < fork.ids.size(); ++t) fork.ids[t] = static_cast<int32_t>((fork.ids[t] + 7) % vocab);
  const at::Tensor expected_TH = model.hidden_states(full, false, nullptr);
  const at::Tensor expected_fork = model.hidden_states(fork, false, nullptr);

  KvCache cache = model.make_cache(5, 32);
  for (at::Tensor& keys : cache.keys) keys.fill_(NAN);  // nothing outside the written positions may be read
  for (at::Tensor& values : cache.values) values.fill_(NAN);
  const std::vector<int64_t> slots = {3, 0, 4};
  const at::Tensor last_NH = model.prefill(prompts, slots, cache, nullptr);
  for (size_t i = 0; i < 3; ++i) {
    CHECK_NEAR(relative_error(last_NH[i], expected_TH[full.offsets[i] + prompt_lengths[i] - 1]), 0, tolerance);
  }
  Transformer::copy_slot(cache, 0, 2, 11);
  for (int step = 0; step < 20; ++step) {
    std::vector<int32_t> ids, positions, active;
    std::vector<at::Tensor> expected;
    for (size_t i = 0; i < 3; ++i) {
      const int32_t position = prompt_lengths[i] + step;
      if (full.offsets[i] + position >= full.offsets[i + 1]) continue;  // finished: the batch shrinks
      ids.push_back(full.ids[full.offsets[i] + position]);
      positions.push_back(position);
      active.push_back(static_cast<int32_t>(slots[i]));
      expected.push_back(expected_TH[full.offsets[i] + position]);
    }
    ids.push_back(fork.ids[11 + step]);
    positions.push_back(11 + step);
    active.push_back(2);
    expected.push_back(expected_fork[11 + step]);
    const at::Tensor hidden_BH = model.decode(ids, positions, active, cache, nullptr);
    for (size_t i = 0; i < ids.size(); ++i) CHECK_NEAR(relative_error(hidden_BH[i], expected[i]), 0, tolerance);
  }
}

void precision(const Flavour& flavour) {
  const PackedSequences sequences = make_sequences({12, 30, 7}, flavour.config.vocab_size, 6);
  Transformer exact = make_model(flavour.config, at::kDouble, 1), half = make_model(flavour.config, at::kBFloat16, 1);
  const Transformer single = make_model(flavour.config, at::kFloat, 1);
  const at::Tensor expected = exact.logits(exact.hidden_states(sequences, false, nullptr));
  CHECK(expected.scalar_type() == at::kDouble);
  const at::Tensor logits = single.logits(single.hidden_states(sequences, false, nullptr));
  CHECK(logits.scalar_type() == at::kFloat);
  CHECK_NEAR(relative_error(logits, expected), 0, 2e-6);
  const at::Tensor rounded = half.logits(half.hidden_states(sequences, false, nullptr));
  CHECK(rounded.scalar_type() == at::kFloat);
  CHECK_NEAR(relative_error(rounded, expected), 0, 0.05);

  // An update of the masters is seen after refresh_compute_weights(), and only in the bfloat16 model before it.
  for (Transformer* model : {&exact, &half}) {
    const at::Tensor before = model->hidden_states(sequences, false, nullptr);
    for (Parameter& parameter : model->parameters()) parameter.master.mul_(1.25);
    CHECK((relative_error(model->hidden_states(sequences, false, nullptr), before) == 0) == (model == &half));
    model->refresh_compute_weights();
    CHECK(relative_error(model->hidden_states(sequences, false, nullptr), before) > 0.1);
  }
  const at::Tensor updated = exact.hidden_states(sequences, false, nullptr);
  CHECK_NEAR(relative_error(half.hidden_states(sequences, false, nullptr), updated), 0, 0.05);
}

// bfloat16 through tiles: the same bits for a sequence alone and among others, in prefill and in decoding.
void alone_and_among_others(const Flavour& flavour) {
  if (!linear_is_row_exact(at::kBFloat16)) return;
  const Transformer model = make_model(flavour.config, at::kBFloat16, 1);
  const PackedSequences prompts = make_sequences({9, 21, 1, 40, 9}, flavour.config.vocab_size, 12);
  const int64_t count = prompts.num_sequences();
  KvCache together = model.make_cache(count, 48), alone = model.make_cache(1, 48);
  const at::Tensor hidden_NH = model.prefill(prompts, {0, 1, 2, 3, 4}, together, nullptr);
  std::vector<int32_t> ids, positions, slots;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(3 + i));
    positions.push_back(prompts.offsets[i + 1] - prompts.offsets[i]);
    slots.push_back(static_cast<int32_t>(i));
  }
  const at::Tensor next_NH = model.decode(ids, positions, slots, together, nullptr);
  const at::Tensor logits_NV = model.logits(next_NH);
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor hidden = model.prefill(part(prompts, i, i + 1), {0}, alone, nullptr);
    CHECK(at::equal(hidden[0], hidden_NH[i]));
    const at::Tensor next = model.decode({ids[i]}, {positions[i]}, {0}, alone, nullptr);
    CHECK(at::equal(next[0], next_NH[i]) && at::equal(model.logits(next)[0], logits_NV[i]));
  }
}

void errors() {
  const ModelConfig config = flavours()[0].config;
  Transformer model(config, at::kFloat, false);
  const PackedSequences sequences = make_sequences({3}, config.vocab_size, 7);
  expect_error(kModel, "has not been loaded", [&] { model.hidden_states(sequences, false, nullptr); });
  expect_error(kModel, "tensor lm_head.weight has shape [2, 3], the config asks for [23, 24]",
               [&] { model.load("lm_head.weight", at::zeros({2, 3})); });
  expect_error(kModel, "no tensor named rotary", [&] { model.load("rotary", at::zeros({2})); });
  expect_error(kModel, "no floating-point", [&] { model.load("model.norm.weight", at::zeros({24}, at::kInt)); });

  const Transformer loaded = make_model(config, at::kFloat, 1, false);
  CHECK(!loaded.parameters()[0].master.requires_grad());
  PackedSequences wrong = sequences;
  wrong.ids[1] = 23;
  expect_error(kShape, "token id 23", [&] { loaded.hidden_states(wrong, false, nullptr); });
  wrong = sequences;
  wrong.offsets = {0, 3, 3};
  expect_error(kShape, "sequence 1 is empty", [&] { loaded.hidden_states(wrong, false, nullptr); });
  wrong.offsets = {0, 2};
  expect_error(kShape, "number of tokens", [&] { loaded.hidden_states(wrong, false, nullptr); });
  KvCache cache = loaded.make_cache(2, 2);
  expect_error(kShape, "does not fit", [&] { loaded.prefill(sequences, {0}, cache, nullptr); });
  expect_error(kShape, "position 2", [&] { loaded.decode({1}, {2}, {0}, cache, nullptr); });
  expect_error(kShape, "slot 2", [&] { loaded.decode({1}, {0}, {2}, cache, nullptr); });
  JobControl control;
  control.cancelled = true;
  expect_error(kAborted, "aborted", [&] { loaded.hidden_states(sequences, false, &control); });
  expect_error(kAborted, "aborted", [&] { loaded.decode({1}, {0}, {0}, cache, &control); });
}

void counts() {
  const Transformer tied(flavours()[2].config, at::kFloat, false);
  CHECK(tied.head().name == "model.embed_tokens.weight");
  const Transformer llama(flavours()[0].config, at::kFloat, false);
  CHECK(llama.head().name == "lm_head.weight");
  CHECK(llama.num_parameters() == 2 * 23 * 24 + 24 + 2 * (2 * 24 + 24 * 24 * 2 + 24 * 12 * 2 + 3 * 24 * 40));
  for (const Parameter& parameter : llama.parameters()) {
    CHECK(parameter.decays == (parameter.name.find("norm") == std::string::npos));
  }
}

}  // namespace

int main() {
  for (const Flavour& flavour : flavours()) {
    packing(flavour, at::kDouble, 1e-12);
    packing(flavour, at::kFloat, 1e-5);
    causality(flavour);
    generation(flavour, at::kDouble, 1e-10);
    generation(flavour, at::kFloat, 1e-5);
    precision(flavour);
    alone_and_among_others(flavour);
  }
  errors();
  counts();
  return check::finish();
}
