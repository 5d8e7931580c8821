#include "core/engine_thread.h"

#include <ATen/Parallel.h>

#include <utility>

namespace archer {

EngineThread::EngineThread(int num_threads) {
  require(num_threads >= 1, kConfig, "num_threads must be at least 1, not " + std::to_string(num_threads));
  thread_ = std::thread([this, num_threads] { loop(num_threads); });
}

EngineThread::~EngineThread() { shutdown(); }

void EngineThread::submit(EngineJob job) {
  {
    std::lock_guard lock(mutex_);
    require(!stopping_, kDisposed, "the engine was shut down");
    queue_.push_back(std::move(job));
  }
  wake_.notify_one();
}

int64_t EngineThread::pending() const {
  std::lock_guard lock(mutex_);
  return static_cast<int64_t>(queue_.size()) + (running_ ? 1 : 0);
}

void EngineThread::shutdown() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    if (running_) running_->cancelled = true;
    for (EngineJob& job : queue_) job.control->cancelled = true;
  }
  wake_.notify_one();
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void EngineThread::loop(int num_threads) {
  // Sets the team of the calling thread, and MKL's: so it has to happen here.
  at::set_num_threads(num_threads);
  for (;;) {
    EngineJob job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      job = std::move(queue_.front());
      queue_.pop_front();
      running_ = job.control;
    }
    job.run();
    job = {};  // what the job captured is freed here, on the engine thread, before it counts as done
    std::lock_guard lock(mutex_);
    running_.reset();
  }
}

}  // namespace archer
