// Adapters over a frozen model: what is trained and where it lies, fresh ones, the base without them, and merging.
#include <cmath>

#include "model/training_pass.h"
#include "model_fixture.h"

#include "expect_error.h"

using namespace archer;
using namespace fixture;

namespace {

const Lora kLora = with_adapters(flavours()[0], false).lora;

void what_is_trained() {
  const ModelConfig config = flavours()[0].config;
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Transformer model = make_model(config, dtype, 3, true, kLora);
    for (const Parameter& parameter : model.parameters()) CHECK(!parameter.master.defined());
    CHECK(model.adapters().size() == 2 * 3 * 2);
    CHECK(model.trained().size() == model.adapters().size());
    CHECK(model.adapters()[0].name == "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight");
    CHECK(model.adapters()[1].name == "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight");
    for (const Parameter& parameter : model.adapters()) CHECK(parameter.master.scalar_type() == at::kFloat);
    CHECK(model.num_parameters() == make_model(config, dtype, 3).num_parameters());

    // What changes the masters changes the adapters' compute weights and nothing else.
    std::vector<at::Tensor> before;
    for (const Parameter& parameter : model.all()) before.push_back(parameter.compute.clone());
    for (const Parameter& parameter : model.trained()) parameter.master.add_(0.1);
    model.refresh_compute_weights();
    const size_t num_own = model.parameters().size();
    for (size_t i = 0; i < before.size(); ++i) CHECK(at::equal(model.all()[i].compute, before[i]) == (i < num_own));
  }
  CHECK(make_model(config, at::kBFloat16, 3, false, kLora).adapters()[0].master.defined());  // to be merged exactly
}

void fresh() {
  const Flavour flavour = flavours()[0];
  const Transformer whole = make_model(flavour.config, at::kFloat, 3);
  Transformer model(flavour.config, at::kFloat, true, kLora), other(flavour.config, at::kFloat, true, kLora);
  model.load_fresh_adapters(7);
  other.load_fresh_adapters(8);
  for (const Parameter& parameter : whole.parameters()) model.load(parameter.name, parameter.compute);
  for (size_t i = 0; i < model.adapters().size(); i += 2) {
    const at::Tensor &a = model.adapters()[i].master, &b = model.adapters()[i + 1].master;
    const double bound = 1.0 / std::sqrt(static_cast<double>(a.size(1)));
    CHECK(a.size(0) == 3 && b.size(1) == 3);
    CHECK(a.abs().max().item().toDouble() <= bound);
    CHECK_NEAR(a.square().mean().item().toDouble() / (bound * bound / 3), 1.0, 0.5);
    CHECK(b.abs().max().item().toDouble() == 0);
    CHECK(!at::equal(a, other.adapters()[i].master));
    if (i > 0 && a.sizes() == model.adapters()[0].master.sizes()) CHECK(!at::equal(a, model.adapters()[0].master));
  }
  const PackedSequences sequences = make_sequences({7, 4}, flavour.config.vocab_size, 4);
  CHECK(at::equal(model.hidden_states(sequences, nullptr), whole.hidden_states(sequences, nullptr)));
}

// base() is the model that was never given adapters, over the same memory; merging is what the adapters compute.
void base_and_merged(const Flavour& flavour) {
  const PackedSequences sequences = make_sequences({7, 21, 2}, flavour.config.vocab_size, 4);
  for (const at::ScalarType dtype : {at::kDouble, at::kBFloat16}) {
    const Transformer model = make_model(flavour.config, dtype, 3, true, flavour.lora);
    const Transformer base = model.base(), whole = make_model(flavour.config, dtype, 3);
    CHECK(base.adapters().empty() && !base.trainable());
    CHECK(base.parameters()[1].compute.data_ptr() == model.parameters()[1].compute.data_ptr());
    CHECK(at::equal(base.hidden_states(sequences, nullptr), whole.hidden_states(sequences, nullptr)));
    Transformer merged(flavour.config, dtype, false);
    for (size_t i = 0; i < model.parameters().size(); ++i) merged.load(model.parameters()[i].name, model.merged(static_cast<int64_t>(i)));
    const at::Tensor adapted = model.hidden_states(sequences, nullptr);
    CHECK(relative_error(adapted, base.hidden_states(sequences, nullptr)) > 0.05);
    CHECK_NEAR(relative_error(merged.hidden_states(sequences, nullptr), adapted), 0, dtype == at::kDouble ? 1e-12 : 0.05);
  }
}

void misuse() {
  const ModelConfig config = flavours()[0].config;
  expect_error(kConfig, "below 0", [&] { Transformer(config, at::kFloat, true, {-1, 1.0, {"q_proj"}}); });
  expect_error(kConfig, "no projections", [&] { Transformer(config, at::kFloat, true, {2, 1.0, {"c_attn"}}); });
  Transformer model(config, at::kFloat, true, kLora);
  model.load_fresh_adapters(1);
  expect_error(kModel, "has not been loaded", [&] { model.hidden_states(make_sequences({3}, config.vocab_size, 4), nullptr); });
}

}  // namespace

int main() {
  what_is_trained();
  fresh();
  for (const Flavour& flavour : flavours()) base_and_merged(with_adapters(flavour, true));
  misuse();
  return check::finish();
}
