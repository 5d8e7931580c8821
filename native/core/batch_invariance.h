// rollout.batch_invariant: while a scope with `on` lives on a thread, matrix products and attention that it starts give a row
// the same bits whatever rows are computed beside it. A mode of the thread like at::NoGradGuard, because the choice is made
// where a generation begins and acts in every product below it. Nothing is differentiated within such a scope.
#pragma once

namespace archer {

class BatchInvariantScope {
 public:
  explicit BatchInvariantScope(bool on) : outer_(active_) { active_ = on; }
  ~BatchInvariantScope() { active_ = outer_; }
  BatchInvariantScope(const BatchInvariantScope&) = delete;
  BatchInvariantScope& operator=(const BatchInvariantScope&) = delete;

  static bool active() { return active_; }

 private:
  static inline thread_local bool active_ = false;
  bool outer_;
};

}  // namespace archer
