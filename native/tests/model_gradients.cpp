// Gradients of every parameter against central differences in float64, for each flavour; then what training relies on:
// micro-batches add up, a repeated run gives the same bits, bfloat16 stays close to float32.
#include "model_fixture.h"

using namespace archer;
using namespace fixture;

namespace {

std::vector<at::Tensor> make_buffers(const Transformer& model) {
  std::vector<at::Tensor> grads;
  const at::ScalarType dtype = model.compute_dtype() == at::kDouble ? at::kDouble : at::kFloat;
  for (const Parameter& parameter : model.parameters()) grads.push_back(at::zeros(parameter.compute.sizes(), dtype));
  return grads;
}

// The loss is sum(direction * hidden): its gradient with respect to hidden is `direction`.
at::Tensor direction_for(const PackedSequences& sequences, const ModelConfig& config) {
  at::manual_seed(11);
  return at::randn({sequences.num_tokens(), config.hidden_size}, at::kDouble);
}

std::vector<at::Tensor> gradients(const Transformer& model, const PackedSequences& sequences, size_t num_parts) {
  const at::Tensor direction_TH = direction_for(sequences, model.config());
  std::vector<at::Tensor> grads = make_buffers(model);
  const size_t n = sequences.offsets.size() - 1;
  for (size_t p = 0; p < num_parts; ++p) {
    const size_t begin = p * n / num_parts, end = (p + 1) * n / num_parts;
    const at::Tensor hidden_TH = model.hidden_states(part(sequences, begin, end), true, nullptr);
    model.backward(hidden_TH, direction_TH.slice(0, sequences.offsets[begin], sequences.offsets[end]), grads);
  }
  return grads;
}

void central_differences(const Flavour& flavour) {
  Transformer model = make_model(flavour.config, at::kDouble, 3);
  const PackedSequences sequences = make_sequences({6, 13, 2}, flavour.config.vocab_size, 4);
  const at::Tensor direction_TH = direction_for(sequences, flavour.config);
  const auto loss = [&] {
    return (direction_TH * model.hidden_states(sequences, false, nullptr)).sum().item().toDouble();
  };
  const std::vector<at::Tensor> grads = gradients(model, sequences, 1);
  std::mt19937_64 random(9);
  for (size_t i = 0; i < grads.size(); ++i) {
    const std::string& name = model.parameters()[i].name;
    if (name == "lm_head.weight") {  // belongs to the loss
      CHECK(grads[i].abs().max().item().toDouble() == 0);
      continue;
    }
    double* values = model.parameters()[i].compute.mutable_data_ptr<double>();
    const double* grad = grads[i].const_data_ptr<double>();
    const double norm = grads[i].norm().item().toDouble();
    // A k bias shifts every score of a query alike where nothing rotates it; with rope its gradient is small, not zero.
    CHECK(norm > 1e-6);
    for (int trial = 0; trial < 3; ++trial) {
      const int64_t j = static_cast<int64_t>(random() % grads[i].numel());
      const double value = values[j], step = 1e-5;
      values[j] = value + step;
      const double above = loss();
      values[j] = value - step;
      const double below = loss();
      values[j] = value;
      CHECK_NEAR((above - below) / (2 * step), grad[j], 1e-6 * (1 + norm));
    }
  }
}

void micro_batches(const Flavour& flavour, at::ScalarType dtype, double tolerance) {
  const Transformer model = make_model(flavour.config, dtype, 3);
  const PackedSequences sequences = make_sequences({7, 21, 2, 9, 30, 14}, flavour.config.vocab_size, 4);
  const std::vector<at::Tensor> whole = gradients(model, sequences, 1), again = gradients(model, sequences, 1);
  for (const size_t parts : {2, 3, 6}) {
    const std::vector<at::Tensor> sum = gradients(model, sequences, parts);
    for (size_t i = 0; i < whole.size(); ++i) {
      if (model.parameters()[i].name == "lm_head.weight") continue;
      CHECK_NEAR(relative_error(sum[i], whole[i]), 0, tolerance);
    }
  }
  for (size_t i = 0; i < whole.size(); ++i) CHECK(at::equal(whole[i], again[i]));
  CHECK(!model.parameters()[0].compute.requires_grad() && !model.parameters()[0].master.grad().defined());
}

void bfloat16_close(const Flavour& flavour) {
  const PackedSequences sequences = make_sequences({7, 21, 2, 9, 30, 14}, flavour.config.vocab_size, 4);
  const Transformer single = make_model(flavour.config, at::kFloat, 3);
  const Transformer half = make_model(flavour.config, at::kBFloat16, 3);
  const std::vector<at::Tensor> expected = gradients(single, sequences, 1), rounded = gradients(half, sequences, 2);
  double squares = 0, total = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    CHECK(rounded[i].scalar_type() == at::kFloat);
    squares += (rounded[i] - expected[i]).square().sum().item().toDouble();
    total += expected[i].square().sum().item().toDouble();
  }
  // 2^-8 per rounding, amplified by steep attention (random weights): 0.03 to 0.07 over the flavours.
  CHECK_NEAR(std::sqrt(squares / total), 0, 0.1);
  std::printf("%s: relative error of the bfloat16 gradients %.4f\n", flavour.name.c_str(), std::sqrt(squares / total));
}

// The leaves of the graph share memory with the weights: an update in place is seen by the next forward.
void update_in_place() {
  const Flavour flavour = flavours()[0];
  Transformer model = make_model(flavour.config, at::kFloat, 3);
  const PackedSequences sequences = make_sequences({5, 4}, flavour.config.vocab_size, 4);
  const at::Tensor before = model.hidden_states(sequences, true, nullptr).detach();
  for (Parameter& parameter : model.parameters()) parameter.master.mul_(1.5);
  const at::Tensor after = model.hidden_states(sequences, true, nullptr).detach();
  CHECK(relative_error(after, before) > 0.1);
  CHECK(at::equal(after, model.hidden_states(sequences, false, nullptr)));
}

}  // namespace

int main() {
  const int num_threads = at::get_num_threads();
  for (const Flavour& flavour : flavours()) {
    at::set_num_threads(1);  // hundreds of tiny forwards: a second thread only waits
    central_differences(flavour);
    at::set_num_threads(num_threads);
    micro_batches(flavour, at::kDouble, 1e-12);
    micro_batches(flavour, at::kFloat, 1e-5);
    bfloat16_close(flavour);
  }
  update_in_place();
  return check::finish();
}
