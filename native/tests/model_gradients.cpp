// Gradients of every parameter, or of every adapter over a frozen model, against autograd over a plain model and against central
// differences, for each flavour; then what training relies on: any packing gives the same sums, a repeated run and checkpointed layers the same bits, and memory is what
// the plan says.
#include "kernels/cpu_isa.h"
#include "model/training_pass.h"
#include "plain_model.h"

#include "expect_error.h"

using namespace archer;
using namespace fixture;

namespace {

std::vector<at::Tensor> make_buffers(const Transformer& model) {
  std::vector<at::Tensor> grads;
  const at::ScalarType dtype = model.compute_dtype() == at::kDouble ? at::kDouble : at::kFloat;
  for (const Parameter& parameter : model.trained()) grads.push_back(at::zeros(parameter.compute.sizes(), dtype));
  return grads;
}

// The loss is sum(direction * hidden): its gradient with respect to hidden is `direction`.
at::Tensor direction_for(const PackedSequences& sequences, const ModelConfig& config) {
  at::manual_seed(11);
  return at::randn({sequences.num_tokens(), config.hidden_size}, at::kDouble);
}

// In `num_parts` micro-batches, one after the other in the same arena.
std::vector<at::Tensor> gradients(const Transformer& model, const PackedSequences& sequences, size_t num_parts,
                                  bool checkpoint = false) {
  const at::Tensor direction_TH = direction_for(sequences, model.config());
  std::vector<at::Tensor> grads = make_buffers(model);
  TrainingPass pass(model, checkpoint);
  const size_t n = sequences.offsets.size() - 1;
  for (size_t p = 0; p < num_parts; ++p) {
    const size_t begin = p * n / num_parts, end = (p + 1) * n / num_parts;
    pass.forward(part(sequences, begin, end), nullptr);
    pass.backward(direction_TH.slice(0, sequences.offsets[begin], sequences.offsets[end]), grads, nullptr);
  }
  return grads;
}

bool is_head(const Transformer& model, size_t i) { return model.trained()[i].name == "lm_head.weight"; }  // the loss's part

// Relative to the whole gradient, over all parameters but an untied head.
double distance(const Transformer& model, const std::vector<at::Tensor>& grads, const std::vector<at::Tensor>& expected) {
  double squares = 0, total = 0;
  for (size_t i = 0; i < grads.size(); ++i) {
    if (is_head(model, i)) continue;
    squares += (grads[i].to(at::kDouble) - expected[i].to(at::kDouble)).square().sum().item().toDouble();
    total += expected[i].to(at::kDouble).square().sum().item().toDouble();
  }
  return std::sqrt(squares / total);
}

void against_autograd(const Flavour& flavour, int64_t num_layers) {
  ModelConfig config = flavour.config;
  config.num_layers = num_layers;
  const PackedSequences sequences = make_sequences({7, 70, 2, 9, 30, 14}, config.vocab_size, 4);
  const at::Tensor direction_TH = direction_for(sequences, config);
  for (const auto& [dtype, tolerance] : {std::pair{at::kDouble, 1e-12}, {at::kFloat, 1e-5}}) {
    const Transformer model = make_model(config, dtype, 3, true, flavour.lora);
    const PlainModel plain(model, at::kDouble);
    CHECK_NEAR(relative_error(TrainingPass(model).forward(sequences, nullptr), plain.hidden(sequences).detach()), 0, tolerance);
    const std::vector<at::Tensor> expected = plain.gradients(sequences, direction_TH), got = gradients(model, sequences, 1);
    for (size_t i = 0; i < got.size(); ++i) {
      if (!is_head(model, i)) CHECK_NEAR(relative_error(got[i], expected[i]), 0, tolerance);
    }
  }
  // bfloat16: as close to the exact gradients of its own weights as autograd in bfloat16, or closer. Between frozen weights little
  // is summed, and the two are two draws of the same roundings.
  const double slack = flavour.lora.rank > 0 ? 1.5 : 1.0;
  const Transformer half = make_model(config, at::kBFloat16, 3, true, flavour.lora);
  const std::vector<at::Tensor> exact = PlainModel(half, at::kDouble).gradients(sequences, direction_TH);
  const double theirs = distance(half, PlainModel(half, at::kBFloat16).gradients(sequences, direction_TH), exact);
  for (const CpuIsa isa : {CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx}) {
    if (limit_cpu_isa(isa) != isa) continue;
    const double ours = distance(half, gradients(half, sequences, 1), exact);
    CHECK(ours <= slack * theirs);
    std::printf("%s, %d layers, %s: relative error of the bfloat16 gradients %.4f, of autograd's %.4f\n", flavour.name.c_str(),
                static_cast<int>(num_layers), cpu_isa_name(isa), ours, theirs);
  }
}

void central_differences(const Flavour& flavour) {
  Transformer model = make_model(flavour.config, at::kDouble, 3, true, flavour.lora);
  const PackedSequences sequences = make_sequences({6, 13, 2}, flavour.config.vocab_size, 4);
  const at::Tensor direction_TH = direction_for(sequences, flavour.config);
  const auto loss = [&] {
    return (direction_TH * model.hidden_states(sequences, nullptr)).sum().item().toDouble();
  };
  const std::vector<at::Tensor> grads = gradients(model, sequences, 1);
  std::mt19937_64 random(9);
  for (size_t i = 0; i < grads.size(); ++i) {
    const std::string& name = model.trained()[i].name;
    if (name == "lm_head.weight") {  // belongs to the loss
      CHECK(grads[i].abs().max().item().toDouble() == 0);
      continue;
    }
    double* values = model.trained()[i].compute.mutable_data_ptr<double>();
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
  const Transformer model = make_model(flavour.config, dtype, 3, true, flavour.lora);
  const PackedSequences sequences = make_sequences({7, 21, 2, 9, 30, 14}, flavour.config.vocab_size, 4);
  const std::vector<at::Tensor> whole = gradients(model, sequences, 1), again = gradients(model, sequences, 1);
  for (const size_t parts : {2, 3, 6}) {
    const std::vector<at::Tensor> sum = gradients(model, sequences, parts);
    for (size_t i = 0; i < whole.size(); ++i) {
      if (model.trained()[i].name == "lm_head.weight") continue;
      CHECK_NEAR(relative_error(sum[i], whole[i]), 0, tolerance);
    }
  }
  for (size_t i = 0; i < whole.size(); ++i) CHECK(at::equal(whole[i], again[i]));
}

void checkpointed(const Flavour& flavour, at::ScalarType dtype) {
  const Transformer model = make_model(flavour.config, dtype, 3, true, flavour.lora);
  const PackedSequences sequences = make_sequences({7, 21, 2, 9, 30, 14}, flavour.config.vocab_size, 4);
  const std::vector<at::Tensor> kept = gradients(model, sequences, 2), again = gradients(model, sequences, 2, true);
  for (size_t i = 0; i < kept.size(); ++i) CHECK(at::equal(kept[i], again[i]));
}

// An update of the weights in place is seen by the next forward.
void update_in_place() {
  const Flavour flavour = flavours()[0];
  Transformer model = make_model(flavour.config, at::kFloat, 3);
  const PackedSequences sequences = make_sequences({5, 4}, flavour.config.vocab_size, 4);
  TrainingPass pass(model);
  const at::Tensor before = pass.forward(sequences, nullptr).clone();
  for (Parameter& parameter : model.parameters()) parameter.master.mul_(1.5);
  const at::Tensor after = pass.forward(sequences, nullptr);
  CHECK(relative_error(after, before) > 0.1);
  CHECK(at::equal(after, model.hidden_states(sequences, nullptr)));
}

// The plan's bytes are those of the arena, which grows to the largest micro-batch and stays.
void memory_plan(const Flavour& flavour, at::ScalarType dtype) {
  const Transformer model = make_model(flavour.config, dtype, 3);
  for (const bool checkpoint : {false, true}) {
    TrainingPass pass(model, checkpoint);
    CHECK(pass.memory_bytes() == 0);
    const void* memory = nullptr;
    for (const int tokens : {64, 256, 128}) {
      const at::Tensor hidden = pass.forward(make_sequences({tokens}, flavour.config.vocab_size, 4), nullptr);
      CHECK(pass.memory_bytes() == activation_bytes(flavour.config, dtype, tokens == 128 ? 256 : tokens, checkpoint));
      if (tokens == 128) CHECK(hidden.storage().data() == memory);
      memory = hidden.storage().data();
    }
  }
  // A layer's share of a token: the shapes of LayerBuffers.
  const ModelConfig& c = flavour.config;
  ModelConfig deeper = c;
  ++deeper.num_layers;
  const int64_t tokens = 64, element = static_cast<int64_t>(c10::elementSize(dtype)), number = dtype == at::kDouble ? 8 : 4;
  const int64_t q = c.num_heads * c.head_dim, k = c.num_kv_heads * c.head_dim;
  const int64_t norms = c.qk_norm ? c.num_heads + c.num_kv_heads : 0;
  const int64_t whole = element * (2 * c.hidden_size + 2 * q + 2 * k + 2 * c.intermediate_size) + number * (2 + c.num_heads + norms);
  const auto layer_share = [&](bool checkpoint) {
    return activation_bytes(deeper, dtype, tokens, checkpoint) - activation_bytes(c, dtype, tokens, checkpoint);
  };
  CHECK(layer_share(false) == tokens * whole);
  CHECK(layer_share(true) == tokens * element * c.hidden_size);
}

void misuse() {
  const Flavour flavour = flavours()[0];
  const Transformer model = make_model(flavour.config, at::kFloat, 3);
  const PackedSequences sequences = make_sequences({5, 4}, flavour.config.vocab_size, 4);
  std::vector<at::Tensor> grads = make_buffers(model);
  TrainingPass pass(model);
  const at::Tensor direction_TH = direction_for(sequences, flavour.config);
  expect_error(kInternal, "forward of its own", [&] { pass.backward(direction_TH, grads, nullptr); });
  pass.forward(sequences, nullptr);
  pass.backward(direction_TH, grads, nullptr);
  expect_error(kInternal, "forward of its own", [&] { pass.backward(direction_TH, grads, nullptr); });
  const Transformer frozen = make_model(flavour.config, at::kFloat, 3, false);
  expect_error(kModel, "trainable: false", [&] { TrainingPass{frozen}; });
}

}  // namespace

int main() {
  const int num_threads = at::get_num_threads();
  for (const Flavour& whole : flavours()) {
    for (const Flavour& flavour : {whole, with_adapters(whole, false), with_adapters(whole, true)}) {
      at::set_num_threads(1);  // hundreds of tiny forwards: a second thread only waits
      central_differences(flavour);
      at::set_num_threads(num_threads);
      for (const int64_t num_layers : {1, 3}) against_autograd(flavour, num_layers);
      micro_batches(flavour, at::kDouble, 1e-12);
      micro_batches(flavour, at::kFloat, 1e-5);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) checkpointed(flavour, dtype);
    }
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) memory_plan(whole, dtype);
  }
  update_in_place();
  misuse();
  return check::finish();
}
