// Generated tokens on their way to JS: the engine thread appends, the JS thread takes everything at once when it polls,
// so that a token costs no call across threads. Entries are (prompt, sample, id), laid flat.
#pragma once
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

namespace archer::binding {

class TokenQueue {
 public:
  void push(int64_t prompt, int64_t sample, int32_t id) {
    const std::lock_guard lock(mutex_);
    entries_.insert(entries_.end(), {static_cast<int32_t>(prompt), static_cast<int32_t>(sample), id});
  }

  // [3 * tokens], in the order of generation; empty afterwards.
  std::vector<int32_t> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(entries_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<int32_t> entries_;
};

}  // namespace archer::binding
