// What a long job shares with the thread that started it: a cancel flag, polled per decoder layer, per generated
// token and per loss chunk, and a progress counter that JS reads without blocking anybody.
#pragma once
#include <atomic>
#include <cstdint>

#include "core/error.h"

namespace archer {

struct JobControl {
  std::atomic<bool> cancelled{false};
  std::atomic<int64_t> done{0};   // units of the job: tokens, for generation; sequences, for scoring and training
  std::atomic<int64_t> total{0};

  void check() const {
    if (cancelled.load(std::memory_order_relaxed)) throw ArcherError(kAborted, "the job was aborted");
  }
};

}  // namespace archer
