// The engine's spans for JS (lib/native/types.ts, EngineSpans).
#pragma once
#include <napi.h>

namespace archer::binding {

Napi::Value switch_profile(const Napi::CallbackInfo& info);
Napi::Value take_spans(const Napi::CallbackInfo& info);

}  // namespace archer::binding
