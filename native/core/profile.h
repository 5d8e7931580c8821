// Where the engine's time goes: spans of the monotonic clock, kept while profiling is on and fetched by whoever switched it on.
// Off, a ProfileSpan costs one relaxed load. Names are literals: no text is copied.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace archer {

struct Span {
  const char* name;
  int64_t index;               // which layer; -1: none
  int64_t begin_ns, end_ns;    // CLOCK_MONOTONIC
};

class Profile {
 public:
  // At most kMostSpans are kept between two calls of take(): later ones are lost, and counted.
  static constexpr size_t kMostSpans = 1 << 18;

  static bool is_on() { return on_.load(std::memory_order_relaxed); }
  static void switch_on(bool on) { on_.store(on, std::memory_order_relaxed); }
  static void add(const Span& span);
  // What has ended since the last call, in the order of the ends.
  static std::vector<Span> take(int64_t& lost);
  static int64_t now_ns();

 private:
  inline static std::atomic<bool> on_{false};
};

// From here to the end of the block.
class ProfileSpan {
 public:
  explicit ProfileSpan(const char* name, int64_t index = -1)
      : name_(name), index_(index), begin_ns_(Profile::is_on() ? Profile::now_ns() : -1) {}
  ~ProfileSpan() {
    if (begin_ns_ >= 0) Profile::add({name_, index_, begin_ns_, Profile::now_ns()});
  }
  ProfileSpan(const ProfileSpan&) = delete;
  ProfileSpan& operator=(const ProfileSpan&) = delete;

 private:
  const char* name_;
  int64_t index_, begin_ns_;
};

}  // namespace archer
