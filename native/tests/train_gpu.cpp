// A policy's update on an emulated GPU (gpu_model.h): scores, loss and gradients against the processor's, AdamW and the norm against
// the processor's kernels over the same gradients, and a resumed trainer against one that went on, bit for bit.
#include "tests/gpu_model.h"
// After the emulation's primitives.
#include "kernels/adamw.h"
#include "train/trainer.h"

using namespace archer;
using namespace fixture;

namespace {

const AdamWOptions kOptions{0.9, 0.95, 1e-8, 0.1, false};
constexpr double kLr = 1e-2, kClip = 0.05;

TrainBatch make_batch(const Transformer& model) {
  TrainBatch batch;
  batch.packed.prompts = make_sequences({4, 2}, model.config().vocab_size, 5);
  batch.packed.responses = make_sequences({6, 10, 4}, model.config().vocab_size, 6);
  batch.packed.prompt_of = {0, 0, 1};
  batch.loss_mask.assign(batch.packed.responses.ids.size(), 1);
  batch.advantages = {1.0f, -0.5f, 0.7f};
  batch.denominators = {3, 20, 20};
  JobControl control;
  const Scores old = score(model, batch.packed, 1.0, &control);
  batch.old_log_probs = old.log_probs;
  batch.old_entropies = old.entropies;
  batch.ref_log_probs = old.log_probs;
  for (float& value : batch.ref_log_probs) value -= 0.3f;
  return batch;
}

LossOptions options_for(EntropySource source) {
  LossOptions options;
  options.entropy_source = source;
  return options;
}

std::vector<at::Tensor> gradients(const Trainer& trainer, const Transformer& model) {
  std::vector<at::Tensor> grads;
  for (const Parameter& parameter : model.trained()) grads.push_back(trainer.gradient(parameter.name).to(at::kCPU).clone());
  return grads;
}

std::vector<at::Tensor> masters(const Transformer& model) {
  std::vector<at::Tensor> copies;
  for (const Parameter& parameter : model.trained()) copies.push_back(parameter.master.to(at::kCPU).clone());
  return copies;
}

double distance(const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
  double squares = 0, total = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    squares += (a[i].to(at::kDouble) - b[i].to(at::kDouble)).square().sum().item().toDouble();
    total += b[i].to(at::kDouble).square().sum().item().toDouble();
  }
  return std::sqrt(squares / total);
}

// The processor's AdamW and norm over gradients `grads` and fresh moments.
void check_step(const Transformer& model, const std::vector<at::Tensor>& before, const std::vector<at::Tensor>& grads,
                const OptimizerStep& step) {
  double squares = 0;
  for (const at::Tensor& grad : grads) squares += kernels::sum_of_squares(grad.const_data_ptr<float>(), grad.numel());
  CHECK_NEAR(step.grad_norm, std::sqrt(squares), 1e-12 * std::sqrt(squares));
  for (size_t i = 0; i < grads.size(); ++i) {
    const Parameter& parameter = model.trained()[i];
    kernels::AdamwCoefficients c{kLr, kOptions.beta1, kOptions.beta2, kOptions.eps, parameter.decays ? kOptions.weight_decay : 0.0,
                                 kClip / (std::sqrt(squares) + 1e-6), 1.0 - kOptions.beta1, std::sqrt(1.0 - kOptions.beta2)};
    at::Tensor m = at::zeros_like(before[i]), v = at::zeros_like(before[i]);
    kernels::adamw_update(before[i].mutable_data_ptr<float>(), grads[i].const_data_ptr<float>(), m.mutable_data_ptr<float>(),
                          v.mutable_data_ptr<float>(), before[i].numel(), c);
    const at::Tensor after = parameter.master.to(at::kCPU);
    CHECK_NEAR((after - before[i]).abs().max().item().toDouble(), 0, 1e-5);  // lr / 1000
    CHECK(parameter.compute.to(at::kCPU).equal(after.to(at::kBFloat16)));
  }
}

void check_flavour(const Flavour& flavour, EntropySource source) {
  ModelConfig config = flavour.config;
  config.head_dim = 16;
  const auto host = std::make_shared<Transformer>(make_model(config, at::kBFloat16, 3, true, flavour.lora));
  const auto exact = std::make_shared<Transformer>(make_model(config, at::kDouble, 3, true, flavour.lora));
  for (size_t i = 0; i < exact->all().size(); ++i) exact->load(exact->all()[i].name, host->all()[i].compute);
  const auto model = std::make_shared<Transformer>(to_gpu(*host, flavour.lora));
  use_emulated_gpu(gpu::emulation::Order::in_turn);

  const TrainBatch batch = make_batch(*model), hosts = make_batch(*exact);
  for (size_t t = 0; t < batch.old_log_probs.size(); ++t) {
    CHECK_NEAR(batch.old_log_probs[t], hosts.old_log_probs[t], 0.15);
    CHECK_NEAR(batch.old_entropies[t], hosts.old_entropies[t], 0.15);
  }
  const LossOptions options = options_for(source);
  JobControl control;
  Trainer trainer(model, kOptions, false), on_host(host, kOptions, false), on_exact(exact, kOptions, false);
  const MicroBatchResult got = trainer.forward_backward(batch, options, &control);
  const MicroBatchResult expected = on_exact.forward_backward(batch, options, &control);
  on_host.forward_backward(batch, options, &control);
  CHECK_NEAR(got.loss, expected.loss, 0.02);
  const std::vector<at::Tensor> grads = gradients(trainer, *model), wanted = gradients(on_exact, *exact);
  const double ours = distance(grads, wanted), theirs = distance(gradients(on_host, *host), wanted);
  std::printf("%s: relative error of the update's gradient on the emulated GPU %.4f, on the processor %.4f\n", flavour.name.c_str(), ours,
              theirs);
  CHECK(ours <= 2.0 * theirs);

  const std::vector<at::Tensor> before = masters(*model);
  check_step(*model, before, grads, trainer.optimizer_step(kLr, kClip));
  for (const Parameter& parameter : model->trained()) CHECK(!trainer.gradient(parameter.name).to(at::kCPU).any().item().toBool());

  // What a checkpoint holds, loaded into another model's trainer; then both go on.
  std::vector<std::pair<std::string, at::Tensor>> saved;
  for (const auto& [name, tensor] : trainer.state()) saved.emplace_back(name, tensor.to(at::kCPU).clone());
  const auto other = std::make_shared<Transformer>(to_gpu(*host, flavour.lora));
  Trainer resumed(other, kOptions, true);
  resumed.load_state(saved, trainer.num_steps());
  for (Trainer* one : {&trainer, &resumed}) {
    one->forward_backward(batch, options, &control);
    one->optimizer_step(kLr, kClip);
  }
  const std::vector<at::Tensor> a = masters(*model), b = masters(*other);
  for (size_t i = 0; i < a.size(); ++i) CHECK(a[i].equal(b[i]));
}

}  // namespace

int main() {
  at::set_num_threads(1);
  for (const Flavour& flavour : flavours()) {
    check_flavour(flavour, EntropySource::rollout);
    check_flavour(with_adapters(flavour, false), EntropySource::current);
  }
  return check::finish();
}
