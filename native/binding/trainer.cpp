#include "binding/trainer.h"

#include <ATen/ATen.h>

#include "binding/loss_values.h"
#include "binding/policy.h"
#include "binding/tensor_table.h"
#include "binding/values.h"
#include "model/safetensors.h"

namespace archer::binding {
namespace {

TrainBatch train_batch(const Napi::Object& object) {
  TrainBatch batch;
  batch.packed = packed_responses(object);
  batch.loss_mask = array<uint8_t>(object, "lossMask");
  batch.old_log_probs = array<float>(object, "oldLogProbs");
  batch.old_entropies = optional_array<float>(object, "oldEntropies");
  batch.ref_log_probs = optional_array<float>(object, "refLogProbs");
  batch.advantages = array<float>(object, "advantages");
  batch.thresholds = optional_array<double>(object, "thresholds");
  batch.denominators = denominators(binding::object(object.Get("denominators"), "denominators"));
  return batch;
}

MakeResult nothing() {
  return [](Napi::Env env) -> Napi::Value { return env.Undefined(); };
}

}  // namespace

Napi::Function TrainerObject::define(Napi::Env env) {
  return DefineClass(env, "Trainer",
                     {InstanceMethod<&TrainerObject::forward_backward>("forwardBackward"),
                      InstanceMethod<&TrainerObject::optimizer_step>("optimizerStep"),
                      InstanceMethod<&TrainerObject::gradient>("gradient"),
                      InstanceMethod<&TrainerObject::zero_grad>("zeroGrad"),
                      InstanceMethod<&TrainerObject::release_memory>("releaseMemory"),
                      InstanceMethod<&TrainerObject::save_state>("saveState"),
                      InstanceMethod<&TrainerObject::load_state>("loadState"),
                      InstanceMethod<&TrainerObject::optimizer_steps>("optimizerSteps"),
                      InstanceMethod<&TrainerObject::memory_bytes>("memoryBytes"),
                      InstanceMethod<&TrainerObject::dispose>("dispose")});
}

TrainerObject::TrainerObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<TrainerObject>(info) {}

std::shared_ptr<Trainer> TrainerObject::trainer() const {
  require(trainer_ != nullptr, kDisposed, "the trainer was disposed");
  return trainer_;
}

Napi::Value TrainerObject::create(const Napi::CallbackInfo& info, const std::shared_ptr<Jobs>& jobs) {
  const Napi::Object policy = object(info[0], "policy");
  require(policy.InstanceOf(constructors(info.Env()).policy.Value()), kShape, "policy must be a Policy");
  const auto model = PolicyObject::Unwrap(policy)->model();
  const Napi::Object request = object(info[1], "options");
  const AdamWOptions options{number(request, "beta1"), number(request, "beta2"), number(request, "eps"),
                             number(request, "weightDecay"), boolean(request, "decayAll")};
  const bool checkpoint = boolean(request, "gradientCheckpointing");
  return jobs->run(info.Env(), std::make_shared<JobControl>(), [=]() -> MakeResult {
    auto trainer = std::make_shared<Trainer>(model, options, checkpoint);
    return [trainer, jobs](Napi::Env env) -> Napi::Value {
      const Napi::Object result = constructors(env).trainer.New({});
      TrainerObject* self = TrainerObject::Unwrap(result);
      self->jobs_ = jobs;
      self->trainer_ = trainer;
      return result;
    };
  });
}

Napi::Value TrainerObject::forward_backward(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto batch = train_batch(object(info[0], "batch"));
    const LossOptions options = loss_options(object(info[1], "options"));
    const auto control = control_argument(info, 2);
    return jobs_->run(info.Env(), control, [trainer = trainer(), batch = std::move(batch), options, control]() -> MakeResult {
      auto result = std::make_shared<MicroBatchResult>(trainer->forward_backward(batch, options, control.get()));
      return [result](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("loss", result->loss);
        object.Set("pgLoss", result->sums.pg_loss);
        object.Set("klLoss", result->sums.kl_loss);
        object.Set("sums", sums_to_js(env, result->sums));
        object.Set("logProbs", to_js(env, result->log_probs));
        object.Set("entropies", to_js(env, result->entropies));
        object.Set("classes", to_js(env, result->classes));
        return object;
      };
    });
  });
}

Napi::Value TrainerObject::optimizer_step(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Object request = object(info[0], "options");
    const double lr = number(request, "lr"), grad_clip = number(request, "gradClip");
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer(), lr, grad_clip]() -> MakeResult {
      const OptimizerStep step = trainer->optimizer_step(lr, grad_clip);
      return [step](Napi::Env env) -> Napi::Value {
        Napi::Object object = Napi::Object::New(env);
        object.Set("gradNorm", step.grad_norm);
        object.Set("skipped", step.skipped);
        return object;
      };
    });
  });
}

Napi::Value TrainerObject::gradient(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string name = info[0].ToString().Utf8Value();
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer(), name]() -> MakeResult {
      const at::Tensor grad = trainer->gradient(name).to(at::kFloat).contiguous();
      const std::vector<float> values(grad.data_ptr<float>(), grad.data_ptr<float>() + grad.numel());
      return [values](Napi::Env env) -> Napi::Value { return to_js(env, values); };
    });
  });
}

Napi::Value TrainerObject::zero_grad(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer()]() -> MakeResult {
      trainer->zero_grad();
      return nothing();
    });
  });
}

Napi::Value TrainerObject::release_memory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer()]() -> MakeResult {
      trainer->release_memory();
      return nothing();
    });
  });
}

Napi::Value TrainerObject::save_state(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string path = info[0].ToString().Utf8Value();
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer(), path]() -> MakeResult {
      write_safetensors(path, trainer->state());
      return nothing();
    });
  });
}

Napi::Value TrainerObject::load_state(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Object request = object(info[0], "options");
    const auto table = tensor_table(request.Get("tensors"));
    const int64_t steps = integer(request, "optimizerSteps");
    return jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = trainer(), table, steps]() -> MakeResult {
      trainer->load_state(open_tensors(table), steps);
      return nothing();
    });
  });
}

Napi::Value TrainerObject::optimizer_steps(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(trainer()->num_steps())); });
}

Napi::Value TrainerObject::memory_bytes(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(trainer()->memory_bytes())); });
}

void TrainerObject::dispose(const Napi::CallbackInfo& info) {
  if (!trainer_) return;
  // Freed on the engine thread, after the jobs that still use it.
  try {
    jobs_->run(info.Env(), std::make_shared<JobControl>(), [trainer = std::move(trainer_)]() mutable -> MakeResult {
      trainer.reset();
      return nothing();
    });
  } catch (const ArcherError&) {
    // the engine has been shut down: nothing runs, and the destructor frees it
  }
  trainer_.reset();
}

}  // namespace archer::binding
