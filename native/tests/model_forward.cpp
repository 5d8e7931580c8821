// The packed forward, prefill and decode agree with each other, whatever shares the pack or the batch.
#include "model_fixture.h"

#include "expect_error.h"

using namespace archer;
using namespace fixture;

namespace {

// A sequence's hidden states are those it has alone.
void packing(const Flavour& flavour, at::ScalarType dtype, double tolerance) {
  const Transformer model = make_model(flavour.config, dtype, 1, false);
  const PackedSequences all = make_sequences({5, 17, 1, 16, 3, 40, 15}, flavour.config.vocab_size, 2);
  const at::Tensor packed_TH = model.hidden_states(all, nullptr);
  CHECK(packed_TH.scalar_type() == dtype && !packed_TH.requires_grad());
  for (size_t i = 0; i + 1 < all.offsets.size(); ++i) {
    const at::Tensor alone = model.hidden_states(part(all, i, i + 1), nullptr);
    CHECK_NEAR(relative_error(packed_TH.slice(0, all.offsets[i], all.offsets[i + 1]), alone), 0, tolerance);
  }
}

// Causality, by hand: a changed token changes its own and later states only.
void causality(const Flavour& flavour) {
  const Transformer model = make_model(flavour.config, at::kDouble, 1, false);
  PackedSequences sequences = make_sequences({9, 9}, flavour.config.vocab_size, 3);
  const at::Tensor before = model.hidden_states(sequences, nullptr);
  sequences.ids[4] = (sequences.ids[4] + 1) % static_cast<int32_t>(flavour.config.vocab_size);
  const at::Tensor changed = (model.hidden_states(sequences, nullptr) - before).abs().amax(1);
  for (int t = 0; t < 18; ++t) {
    const double difference = changed[t].item().toDouble();
    CHECK((t >= 4 && t < 9) ? (difference > 1e-6) : (difference < 1e-12));
  }
}

// Prompts prefilled into scattered pages, then tokens fed one by one at different positions. A fork shares the first page of
// one of them and goes on in a copy of its second: every hidden state is that of the packed forward.
void generation(const Flavour& flavour, at::ScalarType dtype, double tolerance) {
  const int64_t vocab = flavour.config.vocab_size;
  const Transformer model = make_model(flavour.config, dtype, 1, false);
  const std::vector<int> prompt_lengths = {4, 75, 1};
  const PackedSequences full = make_sequences({24, 135, 21}, vocab, 5);
  PackedSequences prompts{{}, {0}};
  for (size_t i = 0; i < 3; ++i) {
    const auto first = full.ids.begin() + full.offsets[i];
    prompts.ids.insert(prompts.ids.end(), first, first + prompt_lengths[i]);
    prompts.offsets.push_back(static_cast<int32_t>(prompts.ids.size()));
  }
  PackedSequences fork = part(full, 1, 2);
  for (size_t t = 75; t < fork.ids.size(); ++t) fork.ids[t] = static_cast<int32_t>((fork.ids[t] + 7) % vocab);
  const at::Tensor expected_TH = model.hidden_states(full, nullptr);
  const at::Tensor expected_fork = model.hidden_states(fork, nullptr);

  KvCache cache(flavour.config, dtype, 9);
  for (at::Tensor& keys : cache.keys) keys.fill_(NAN);  // nothing outside the written positions may be read
  for (at::Tensor& values : cache.values) values.fill_(NAN);
  const std::vector<PageTable> tables = {{3}, {8, 0, 5}, {4}};
  const PageTable fork_table = {8, 6, 2};
  const at::Tensor last_NH = model.prefill(prompts, {{tables[0]}, {tables[1]}, {tables[2]}}, cache, nullptr);
  for (size_t i = 0; i < 3; ++i) {
    CHECK_NEAR(relative_error(last_NH[i], expected_TH[full.offsets[i] + prompt_lengths[i] - 1]), 0, tolerance);
  }
  cache.copy_page(0, 6, 75 - 64);
  for (int step = 0; step < 60; ++step) {
    std::vector<int32_t> ids, positions;
    std::vector<Pages> pages;
    std::vector<at::Tensor> expected;
    for (size_t i = 0; i < 3; ++i) {
      const int32_t position = prompt_lengths[i] + step;
      if (full.offsets[i] + position >= full.offsets[i + 1]) continue;  // finished: the batch shrinks
      ids.push_back(full.ids[full.offsets[i] + position]);
      positions.push_back(position);
      pages.push_back(tables[i]);
      expected.push_back(expected_TH[full.offsets[i] + position]);
    }
    ids.push_back(fork.ids[75 + step]);
    positions.push_back(75 + step);
    pages.push_back(fork_table);
    expected.push_back(expected_fork[75 + step]);
    const at::Tensor hidden_BH = model.decode(ids, positions, pages, cache, nullptr);
    for (size_t i = 0; i < ids.size(); ++i) CHECK_NEAR(relative_error(hidden_BH[i], expected[i]), 0, tolerance);
  }
}

void precision(const Flavour& flavour) {
  const PackedSequences sequences = make_sequences({12, 30, 7}, flavour.config.vocab_size, 6);
  Transformer exact = make_model(flavour.config, at::kDouble, 1), half = make_model(flavour.config, at::kBFloat16, 1);
  const Transformer single = make_model(flavour.config, at::kFloat, 1);
  const at::Tensor expected = exact.logits(exact.hidden_states(sequences, nullptr));
  CHECK(expected.scalar_type() == at::kDouble);
  const at::Tensor logits = single.logits(single.hidden_states(sequences, nullptr));
  CHECK(logits.scalar_type() == at::kFloat);
  CHECK_NEAR(relative_error(logits, expected), 0, 2e-6);
  const at::Tensor rounded = half.logits(half.hidden_states(sequences, nullptr));
  CHECK(rounded.scalar_type() == at::kFloat);
  CHECK_NEAR(relative_error(rounded, expected), 0, 0.05);

  // An update of the masters is seen after refresh_compute_weights(), and only in the bfloat16 model before it.
  for (Transformer* model : {&exact, &half}) {
    const at::Tensor before = model->hidden_states(sequences, nullptr);
    for (Parameter& parameter : model->parameters()) parameter.master.mul_(1.25);
    CHECK((relative_error(model->hidden_states(sequences, nullptr), before) == 0) == (model == &half));
    model->refresh_compute_weights();
    CHECK(relative_error(model->hidden_states(sequences, nullptr), before) > 0.1);
  }
  const at::Tensor updated = exact.hidden_states(sequences, nullptr);
  CHECK_NEAR(relative_error(half.hidden_states(sequences, nullptr), updated), 0, 0.05);
}

// Sequences that share pages may be prefilled again: what lies before `first` is not written.
void prefill_behind_shared_pages(const Flavour& flavour) {
  const Transformer model = make_model(flavour.config, at::kDouble, 1, false);
  const PackedSequences sequences = make_sequences({70}, flavour.config.vocab_size, 8);
  KvCache cache(flavour.config, at::kDouble, 3);
  for (at::Tensor& keys : cache.keys) keys.fill_(7);
  const PageTable table = {2, 0};
  model.prefill(sequences, {{table, 64}}, cache, nullptr);
  for (const at::Tensor& keys : cache.keys) {
    CHECK((keys[2] == 7).all().item<bool>() && (keys[1] == 7).all().item<bool>());
    CHECK((keys[0].narrow(1, 0, 6) != 7).all().item<bool>() && (keys[0].narrow(1, 6, 58) == 7).all().item<bool>());
  }
}

void errors() {
  const ModelConfig config = flavours()[0].config;
  Transformer model(config, at::kFloat, false);
  const PackedSequences sequences = make_sequences({3}, config.vocab_size, 7);
  expect_error(kModel, "has not been loaded", [&] { model.hidden_states(sequences, nullptr); });
  expect_error(kModel, "tensor lm_head.weight has shape [2, 3], the config asks for [23, 24]",
               [&] { model.load("lm_head.weight", at::zeros({2, 3})); });
  expect_error(kModel, "no tensor named rotary", [&] { model.load("rotary", at::zeros({2})); });
  expect_error(kModel, "no floating-point", [&] { model.load("model.norm.weight", at::zeros({24}, at::kInt)); });

  const Transformer loaded = make_model(config, at::kFloat, 1, false);
  CHECK(!loaded.parameters()[0].master.requires_grad());
  PackedSequences wrong = sequences;
  wrong.ids[1] = 23;
  expect_error(kShape, "token id 23", [&] { loaded.hidden_states(wrong, nullptr); });
  wrong = sequences;
  wrong.offsets = {0, 3, 3};
  expect_error(kShape, "sequence 1 is empty", [&] { loaded.hidden_states(wrong, nullptr); });
  wrong.offsets = {0, 2};
  expect_error(kShape, "number of tokens", [&] { loaded.hidden_states(wrong, nullptr); });
  KvCache cache(config, at::kFloat, 2);
  const PageTable table = {1}, outside = {2}, none;
  expect_error(kShape, "3 positions do not fit 0 pages", [&] { loaded.prefill(sequences, {{none}}, cache, nullptr); });
  expect_error(kShape, "one page table per sequence", [&] { loaded.prefill(sequences, {}, cache, nullptr); });
  expect_error(kShape, "65 positions do not fit 1 pages", [&] { loaded.decode({1}, {64}, {table}, cache, nullptr); });
  expect_error(kShape, "position -1", [&] { loaded.decode({1}, {-1}, {table}, cache, nullptr); });
  expect_error(kShape, "page 2", [&] { loaded.decode({1}, {0}, {outside}, cache, nullptr); });
  JobControl control;
  control.cancelled = true;
  expect_error(kAborted, "aborted", [&] { loaded.hidden_states(sequences, &control); });
  expect_error(kAborted, "aborted", [&] { loaded.decode({1}, {0}, {table}, cache, &control); });
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
    prefill_behind_shared_pages(flavour);
  }
  errors();
  counts();
  return check::finish();
}
