// Trainer: gradients and optimizer state of one policy.
#pragma once
#include <napi.h>

#include <memory>

#include "binding/engine.h"
#include "train/trainer.h"

namespace archer::binding {

class TrainerObject : public Napi::ObjectWrap<TrainerObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit TrainerObject(const Napi::CallbackInfo& info);
  // Engine.createTrainer
  static Napi::Value create(const Napi::CallbackInfo& info, const std::shared_ptr<Jobs>& jobs);

 private:
  Napi::Value forward_backward(const Napi::CallbackInfo& info);
  Napi::Value optimizer_step(const Napi::CallbackInfo& info);
  Napi::Value gradient(const Napi::CallbackInfo& info);
  Napi::Value zero_grad(const Napi::CallbackInfo& info);
  Napi::Value release_memory(const Napi::CallbackInfo& info);
  Napi::Value save_state(const Napi::CallbackInfo& info);
  Napi::Value load_state(const Napi::CallbackInfo& info);
  Napi::Value optimizer_steps(const Napi::CallbackInfo& info);
  Napi::Value memory_bytes(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<Trainer> trainer() const;

  std::shared_ptr<Jobs> jobs_;
  std::shared_ptr<Trainer> trainer_;
};

}  // namespace archer::binding
