// What a job will take of memory (lib/native/types.ts, MemoryRequest and MemoryParts).
#pragma once
#include <napi.h>

namespace archer::binding {

Napi::Value memory_parts(const Napi::CallbackInfo& info);

}  // namespace archer::binding
