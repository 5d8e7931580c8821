#include "core/profile.h"

#include <chrono>
#include <mutex>
#include <utility>

namespace archer {
namespace {

std::mutex mutex;  // the engine's thread adds, the JS thread takes
std::vector<Span> spans;
int64_t num_lost = 0;

}  // namespace

void Profile::add(const Span& span) {
  const std::lock_guard lock(mutex);
  if (spans.size() < kMostSpans) spans.push_back(span);
  else ++num_lost;
}

std::vector<Span> Profile::take(int64_t& lost) {
  const std::lock_guard lock(mutex);
  lost = std::exchange(num_lost, 0);
  return std::exchange(spans, {});
}

int64_t Profile::now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace archer
