// One thread that makes every call into libtorch, with a queue of jobs. Each thread that enters libtorch brings its own
// OpenMP team, and a step on libuv's pool would starve fs and dns; hence one thread of our own, not AsyncWorker.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/job_control.h"

namespace archer {

struct EngineJob {
  std::shared_ptr<JobControl> control;
  std::function<void()> run;  // must not throw; is called even where the job was cancelled while it waited
};

class EngineThread {
 public:
  // num_threads: the size of the OpenMP team of this thread; at least 1.
  explicit EngineThread(int num_threads);
  ~EngineThread();
  EngineThread(const EngineThread&) = delete;
  EngineThread& operator=(const EngineThread&) = delete;

  // Throws ARCHER_E_DISPOSED after shutdown.
  void submit(EngineJob job);
  // Waiting and running jobs.
  int64_t pending() const;
  // Cancels the running job and those that wait (each is still run, to settle its promise), joins. Idempotent.
  void shutdown();

 private:
  void loop(int num_threads);

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<EngineJob> queue_;
  std::shared_ptr<JobControl> running_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace archer
