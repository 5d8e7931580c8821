// Stop tokens by search in a short list; stop strings by search in the last few bytes plus the new token's bytes.
#include "generate/stop.h"

#include <algorithm>

#include "core/error.h"

namespace archer {

void StopConditions::validate(int64_t vocab_size) const {
  for (const int32_t id : token_ids) {
    require(id >= 0 && id < vocab_size, kConfig,
            "stop token id " + std::to_string(id) + " is outside the vocabulary of " + std::to_string(vocab_size));
  }
  if (strings.empty()) return;
  for (const std::string& string : strings) require(!string.empty(), kConfig, "a stop string must not be empty");
  const size_t num_entries = token_bytes ? token_bytes->size() : 0;
  require(num_entries == static_cast<size_t>(vocab_size), kConfig,
          "stop strings need the bytes of every token: got a table of " + std::to_string(num_entries) +
              " entries for a vocabulary of " + std::to_string(vocab_size));
}

bool StopConditions::is_stop_token(int32_t id) const {
  return std::find(token_ids.begin(), token_ids.end(), id) != token_ids.end();
}

bool StopStringMatcher::push(int32_t id, const StopConditions& conditions) {
  if (conditions.strings.empty()) return false;
  tail_ += (*conditions.token_bytes)[static_cast<size_t>(id)];
  size_t longest = 0;
  for (const std::string& string : conditions.strings) {
    if (tail_.find(string) != std::string::npos) return true;
    longest = std::max(longest, string.size());
  }
  if (tail_.size() >= longest) tail_.erase(0, tail_.size() - (longest - 1));
  return false;
}

}  // namespace archer
