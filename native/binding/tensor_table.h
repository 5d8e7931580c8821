// The table of tensors that TypeScript read out of safetensors headers (lib/native/types.ts, TensorEntry).
#pragma once
#include <napi.h>

#include <vector>

#include "model/safetensors.h"

namespace archer::binding {

std::vector<TensorEntry> tensor_table(const Napi::Value& value);

}  // namespace archer::binding
