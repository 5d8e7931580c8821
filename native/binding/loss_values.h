// The loss at the door: options and batches from JS, results and metric sums to JS, and the three loss calls of Engine.
#pragma once
#include <napi.h>

#include "binding/engine.h"
#include "loss/options.h"
#include "loss/token_loss.h"

namespace archer::binding {

LossOptions loss_options(const Napi::Object& object);
Denominators denominators(const Napi::Object& object);
Napi::Object sums_to_js(Napi::Env env, const LossSums& sums);

Napi::Value run_fused_loss(const Napi::CallbackInfo& info, Jobs& jobs);
Napi::Value run_token_loss(const Napi::CallbackInfo& info, Jobs& jobs);
Napi::Value run_class_thresholds(const Napi::CallbackInfo& info, Jobs& jobs);

}  // namespace archer::binding
