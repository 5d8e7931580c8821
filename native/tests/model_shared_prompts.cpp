// Prompts that several responses share in a pack, against the pack in which each response has a copy of its own: the same hidden
// states, in tiles to the bit, and the same gradients, for each flavour; whatever the split over micro-batches and the threads.
#include "core/attention.h"
#include "kernels/cpu_isa.h"
#include "model/training_pass.h"
#include "model_fixture.h"

#include "expect_error.h"

using namespace archer;
using namespace fixture;

namespace {

struct Group {
  int prompt;
  std::vector<int> responses;
};

// Prompts of 1 token and of a block's 64, a block that a prompt ends in and one that a response ends in, one response, many.
const std::vector<Group> kGroups = {{70, {3, 60, 1, 130}}, {1, {9, 2}}, {64, {64, 5, 7, 30, 2, 11}}, {17, {40}}};

// Tokens of every group, the same in each arrangement.
std::vector<int32_t> tokens(int64_t seed, int length, int64_t vocab_size) {
  return make_sequences({length}, vocab_size, static_cast<uint64_t>(seed)).ids;
}

struct Arrangement {
  PackedSequences sequences;
  std::vector<int64_t> rows;    // of the responses' tokens, group by group
  std::vector<int64_t> prompts; // of the prompts' tokens; without sharing those of the first copy
};

void append(Arrangement& a, const std::vector<int32_t>& ids, std::vector<int64_t>* rows) {
  for (const int32_t id : ids) {
    if (rows) rows->push_back(a.sequences.num_tokens());
    a.sequences.ids.push_back(id);
  }
}
void end_sequence(Arrangement& a, int32_t parent) {
  a.sequences.offsets.push_back(static_cast<int32_t>(a.sequences.num_tokens()));
  a.sequences.parents.push_back(parent);
}

// `copies`: groups are split, so that up to that many responses share a prompt; 0: each response with the prompt is one sequence.
Arrangement arrange(const std::vector<Group>& groups, size_t copies, int64_t vocab_size) {
  Arrangement a{{{}, {0}, {}}, {}, {}};
  for (size_t g = 0; g < groups.size(); ++g) {
    const std::vector<int32_t> prompt = tokens(static_cast<int64_t>(100 * g), groups[g].prompt, vocab_size);
    int32_t parent = -1;
    for (size_t i = 0; i < groups[g].responses.size(); ++i) {
      if (copies == 0 || i % copies == 0) {
        append(a, prompt, i == 0 ? &a.prompts : nullptr);
        if (copies > 0) {
          end_sequence(a, -1);
          parent = static_cast<int32_t>(a.sequences.num_sequences()) - 1;
        }
      }
      append(a, tokens(static_cast<int64_t>(100 * g + i + 1), groups[g].responses[i], vocab_size), &a.rows);
      end_sequence(a, parent);
    }
  }
  return a;
}

struct Run {
  at::Tensor responses, prompts;  // hidden states
  std::vector<at::Tensor> grads;
};

// The loss is a random linear form of the hidden states of the responses and of the first copy of each prompt.
Run run(const Transformer& model, const Arrangement& a, bool checkpoint = false) {
  TrainingPass pass(model, checkpoint);
  const auto index = [](const std::vector<int64_t>& rows) { return at::tensor(rows, at::TensorOptions().dtype(at::kLong)); };
  const at::Tensor hidden_TH = pass.forward(a.sequences, nullptr);
  Run result{hidden_TH.index_select(0, index(a.rows)), hidden_TH.index_select(0, index(a.prompts)), {}};
  CHECK(at::equal(model.hidden_states(a.sequences, nullptr), hidden_TH));
  at::manual_seed(11);
  const at::Tensor of_responses = at::randn(result.responses.sizes(), at::kDouble), of_prompts = at::randn(result.prompts.sizes(), at::kDouble);
  const at::Tensor direction_TH = at::zeros(hidden_TH.sizes(), at::kDouble);
  direction_TH.index_copy_(0, index(a.rows), of_responses).index_copy_(0, index(a.prompts), of_prompts);
  const at::ScalarType wide = model.compute_dtype() == at::kDouble ? at::kDouble : at::kFloat;
  for (const Parameter& parameter : model.trained()) result.grads.push_back(at::zeros(parameter.compute.sizes(), wide));
  pass.backward(direction_TH, result.grads, nullptr);
  return result;
}

void check_near(const Transformer& model, const Run& got, const Run& expected, double tolerance) {
  CHECK_NEAR(relative_error(got.responses, expected.responses), 0, tolerance);
  CHECK_NEAR(relative_error(got.prompts, expected.prompts), 0, tolerance);
  for (size_t i = 0; i < got.grads.size(); ++i) {
    if (model.trained()[i].name != "lm_head.weight") CHECK_NEAR(relative_error(got.grads[i], expected.grads[i]), 0, tolerance);
  }
}

void check_same(const Run& a, const Run& b) {
  CHECK(at::equal(a.responses, b.responses) && at::equal(a.prompts, b.prompts));
  for (size_t i = 0; i < a.grads.size(); ++i) CHECK(at::equal(a.grads[i], b.grads[i]));
}

void check_flavour(const Flavour& flavour) {
  const int64_t vocab = flavour.config.vocab_size;
  const Arrangement apart = arrange(kGroups, 0, vocab);
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}}) {
    const Transformer model = make_model(flavour.config, dtype, 3, true, flavour.lora);
    const Run expected = run(model, apart);
    for (const size_t copies : {1, 2, 8}) check_near(model, run(model, arrange(kGroups, copies, vocab)), expected, tolerance);
    check_same(run(model, arrange(kGroups, 8, vocab)), run(model, arrange(kGroups, 8, vocab), true));
  }
}

// In tiles: a response's states have the bits of the response alone with its prompt, and threads change no bit of the gradients.
void in_tiles(const Flavour& flavour) {
  const int64_t vocab = flavour.config.vocab_size;
  const Transformer model = make_model(flavour.config, at::kBFloat16, 3, true, flavour.lora);
  const Transformer exact = make_model(flavour.config, at::kDouble, 3, true, flavour.lora);
  const Run apart = run(model, arrange(kGroups, 0, vocab)), reference = run(exact, arrange(kGroups, 0, vocab));
  const auto distance = [&](const Run& x) {
    double squares = 0;
    for (size_t i = 0; i < x.grads.size(); ++i) squares += (x.grads[i].to(at::kDouble) - reference.grads[i]).square().sum().item<double>();
    return squares;
  };
  for (const size_t copies : {1, 2, 8}) {
    const Run shared = run(model, arrange(kGroups, copies, vocab));
    CHECK(at::equal(shared.responses, apart.responses));
    CHECK(at::equal(shared.prompts, apart.prompts));
    CHECK(distance(shared) <= 1.1 * distance(apart));
  }
  const Arrangement all = arrange(kGroups, 8, vocab);
  at::set_num_threads(1);
  const Run alone = run(model, all);
  at::set_num_threads(2);
  check_same(run(model, all), alone);
  check_same(run(model, all, true), alone);
}

void misuse() {
  const Flavour flavour = flavours()[0];
  const Transformer model = make_model(flavour.config, at::kFloat, 3);
  PackedSequences sequences = make_sequences({2, 3, 4, 5}, flavour.config.vocab_size, 4);
  const auto expect = [&](std::vector<int32_t> parents, const char* part) {
    sequences.parents = std::move(parents);
    expect_error(kShape, part, [&] { model.hidden_states(sequences, nullptr); });
  };
  expect({-1}, "one entry per sequence");
  expect({1, -1, -1, -1}, "must stand before it");
  expect({-1, 0, 1, -1}, "continue nothing");
  expect({-1, 0, -1, 0}, "must stand together");
}

}  // namespace

int main() {
  for (const Flavour& flavour : flavours()) {
    check_flavour(flavour);
    check_flavour(with_adapters(flavour, true));
  }
  for (const CpuIsa isa : {CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    for (const Flavour& flavour : flavours()) {
      in_tiles(flavour);
      in_tiles(with_adapters(flavour, true));
    }
    Flavour wide = flavours()[0];  // whole blocks of head_dim, an odd group
    wide.config.num_heads = 3;
    wide.config.num_kv_heads = 1;
    wide.config.head_dim = 64;
    in_tiles(wide);
  }
  misuse();
  return check::finish();
}
