// When a response ends: at a stop token, once its bytes contain a stop string, or at its length limit. The token that
// ends a response belongs to it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace archer {

enum class FinishReason : uint8_t { stop, stop_string, length };

struct StopConditions {
  std::vector<int32_t> token_ids;    // EOS and others
  std::vector<std::string> strings;  // UTF-8; need token_bytes
  // The bytes that each id stands for, [V]; "" for ids without text. Shared: one table serves all calls of a tokenizer.
  std::shared_ptr<const std::vector<std::string>> token_bytes;

  // ARCHER_E_CONFIG on an id outside the vocabulary, an empty string, strings without a table of V entries.
  void validate(int64_t vocab_size) const;
  bool is_stop_token(int32_t id) const;
};

// Follows one response and finds stop strings that cross token borders: it remembers as many of the last bytes as could
// begin a match.
class StopStringMatcher {
 public:
  // True if a stop string ends within the bytes of `id`, which is the response's next token.
  bool push(int32_t id, const StopConditions& conditions);

 private:
  std::string tail_;
};

}  // namespace archer
