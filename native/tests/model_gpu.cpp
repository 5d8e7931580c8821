// Training passes on an emulated GPU: the kernels' own source thread by thread, libtorch's device by emulated_torch_device.h. Hidden
// states and gradients of every parameter are held against the exact ones of the same bfloat16 weights, and must be about as close
// to them as autograd in bfloat16 is; a repeated run, another order of threads and checkpointed layers give the same bits.
#include "tests/gpu_model.h"
// After the emulation's primitives.
#include "model/training_pass.h"
#include "plain_model.h"

using namespace archer;
using namespace fixture;

namespace {

struct Result {
  at::Tensor hidden_TH;
  std::vector<at::Tensor> grads;
};

Result run(const Transformer& model, const PackedSequences& sequences, const at::Tensor& direction_TH, bool checkpoint) {
  std::vector<at::Tensor> grads;
  for (const Parameter& parameter : model.trained()) {
    grads.push_back(at::empty(parameter.compute.sizes(), at::TensorOptions(at::kFloat).device(model.device())).zero_());
  }
  TrainingPass pass(model, checkpoint);
  const at::Tensor hidden_TH = pass.forward(sequences, nullptr).to(at::kCPU);
  pass.backward(direction_TH.to(at::TensorOptions(at::kFloat).device(model.device())), grads, nullptr);
  for (at::Tensor& grad : grads) grad = grad.to(at::kCPU);
  return {hidden_TH, grads};
}

double distance(const Transformer& model, const std::vector<at::Tensor>& grads, const std::vector<at::Tensor>& expected) {
  double squares = 0, total = 0;
  for (size_t i = 0; i < grads.size(); ++i) {
    if (model.trained()[i].name == "lm_head.weight") continue;  // the loss's part
    squares += (grads[i].to(at::kDouble) - expected[i].to(at::kDouble)).square().sum().item().toDouble();
    total += expected[i].to(at::kDouble).square().sum().item().toDouble();
  }
  return std::sqrt(squares / total);
}

bool same(const Result& a, const Result& b) {
  if (!a.hidden_TH.equal(b.hidden_TH)) return false;
  for (size_t i = 0; i < a.grads.size(); ++i) {
    if (!a.grads[i].equal(b.grads[i])) return false;
  }
  return true;
}

void against_exact(const Flavour& flavour) {
  ModelConfig config = flavour.config;
  config.head_dim = 16;
  const PackedSequences sequences = make_sequences({7, 21, 1, 2}, config.vocab_size, 4);
  at::manual_seed(11);
  const at::Tensor direction_TH = at::randn({sequences.num_tokens(), config.hidden_size}, at::kFloat);
  const Transformer host = make_model(config, at::kBFloat16, 3, true, flavour.lora);
  const Transformer model = to_gpu(host, flavour.lora);

  use_emulated_gpu(gpu::emulation::Order::in_turn);
  const Result got = run(model, sequences, direction_TH, false);
  CHECK(got.hidden_TH.equal(model.hidden_states(sequences, nullptr).to(at::kCPU)));
  CHECK(same(got, run(model, sequences, direction_TH, true)));
  use_emulated_gpu(gpu::emulation::Order::reversed);
  CHECK(same(got, run(model, sequences, direction_TH, false)));

  const PlainModel exact(host, at::kDouble);
  const std::vector<at::Tensor> expected = exact.gradients(sequences, direction_TH);
  const double ours = distance(host, got.grads, expected);
  const double theirs = distance(host, PlainModel(host, at::kBFloat16).gradients(sequences, direction_TH), expected);
  std::printf("%s: relative error of the gradients on the emulated GPU %.4f, of autograd's %.4f\n", flavour.name.c_str(), ours, theirs);
  // Between frozen weights little is summed, and the two are two draws of the same roundings.
  CHECK(ours <= (flavour.lora.rank > 0 ? 2.0 : 1.1) * theirs);
  CHECK_NEAR(relative_error(got.hidden_TH, exact.hidden(sequences).detach()), 0, 0.03);
}

}  // namespace

int main() {
  at::set_num_threads(1);
  for (const Flavour& flavour : flavours()) {
    against_exact(flavour);
    against_exact(with_adapters(flavour, true));
  }
  return check::finish();
}
