// Policy: a transformer's weights on the engine, with generation and scoring.
#pragma once
#include <napi.h>

#include <memory>
#include <string>

#include "binding/engine.h"
#include "model/transformer.h"
#include "train/response_rows.h"

namespace archer::binding {

// lib/native/types.ts: NativeModelConfig, ComputeDtype, PackedResponses, LoraOptions
ModelConfig model_config(const Napi::Object& object);
at::ScalarType compute_dtype(const std::string& name);
PackedResponses packed_responses(const Napi::Object& object);
// LoraOptions under `lora`; no adapters where it is absent.
Lora lora_options(const Napi::Object& request);

class PolicyObject : public Napi::ObjectWrap<PolicyObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit PolicyObject(const Napi::CallbackInfo& info);
  // Engine.loadPolicy
  static Napi::Value load(const Napi::CallbackInfo& info, const std::shared_ptr<Jobs>& jobs);
  // ARCHER_E_DISPOSED after dispose().
  std::shared_ptr<Transformer> model() const;

 private:
  Napi::Value num_parameters(const Napi::CallbackInfo& info);
  Napi::Value memory_bytes(const Napi::CallbackInfo& info);
  Napi::Value generate(const Napi::CallbackInfo& info);
  Napi::Value score(const Napi::CallbackInfo& info);
  Napi::Value logits(const Napi::CallbackInfo& info);
  Napi::Value save_weights(const Napi::CallbackInfo& info);
  Napi::Value save_adapters(const Napi::CallbackInfo& info);
  Napi::Value base(const Napi::CallbackInfo& info);
  void dispose(const Napi::CallbackInfo& info);

  static Napi::Object wrap(Napi::Env env, const std::shared_ptr<Jobs>& jobs, const std::shared_ptr<Transformer>& model);

  std::shared_ptr<Jobs> jobs_;
  std::shared_ptr<Transformer> model_;
};

}  // namespace archer::binding
