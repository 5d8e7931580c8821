#include "binding/values.h"

namespace archer::binding {

PackedSequences packed(const Napi::Object& object, const char* ids_key, const char* offsets_key) {
  PackedSequences result{array<int32_t>(object, ids_key), array<int32_t>(object, offsets_key)};
  const auto& offsets = result.offsets;
  require(!offsets.empty() && offsets.front() == 0 && offsets.back() == result.num_tokens(), kShape,
          std::string(offsets_key) + " must run from 0 to the " + std::to_string(result.num_tokens()) + " entries of " + ids_key);
  for (size_t i = 1; i < offsets.size(); ++i) {
    require(offsets[i] > offsets[i - 1], kShape, std::string(offsets_key) + "[" + std::to_string(i) + "] must exceed the one before it");
  }
  return result;
}

}  // namespace archer::binding
