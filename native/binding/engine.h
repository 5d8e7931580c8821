// Engine: owns the engine thread; every long call becomes a job on it and a promise here.
#pragma once
#include <napi.h>

#include <functional>
#include <memory>

#include "binding/token_queue.h"
#include "core/engine_thread.h"
#include "core/failure.h"

namespace archer::binding {

// Per-environment constructors, so that classes of this addon can make and recognise one another's objects.
struct Constructors {
  Napi::FunctionReference job_control, engine, policy, trainer;
};
Constructors& constructors(Napi::Env env);

class JobControlObject : public Napi::ObjectWrap<JobControlObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit JobControlObject(const Napi::CallbackInfo& info);
  const std::shared_ptr<JobControl>& control() const { return control_; }
  const std::shared_ptr<TokenQueue>& tokens() const { return tokens_; }

 private:
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value progress(const Napi::CallbackInfo& info);
  Napi::Value take_tokens(const Napi::CallbackInfo& info);
  std::shared_ptr<JobControl> control_ = std::make_shared<JobControl>();
  std::shared_ptr<TokenQueue> tokens_ = std::make_shared<TokenQueue>();
};

// The JobControl of an optional argument; a fresh one where it was left out.
std::shared_ptr<JobControl> control_argument(const Napi::CallbackInfo& info, size_t index);
// Its queue of generated tokens; null where it was left out.
std::shared_ptr<TokenQueue> tokens_argument(const Napi::CallbackInfo& info, size_t index);

// Runs on the JS thread after the work is done; makes what the promise resolves to.
using MakeResult = std::function<Napi::Value(Napi::Env)>;

// Submits work to the engine thread and settles a promise on the JS thread. Kept alive by JS objects that share it.
class Jobs : public std::enable_shared_from_this<Jobs> {
 public:
  Jobs(Napi::Env env, int num_threads);
  ~Jobs();
  // `work` runs on the engine thread and returns the maker of the result.
  Napi::Value run(Napi::Env env, std::shared_ptr<JobControl> control, std::function<MakeResult()> work);
  int64_t pending() const { return thread_.pending(); }
  void shutdown();

 private:
  struct Pending;
  void settle(Napi::Env env, Pending* job);

  EngineThread thread_;
  Napi::ThreadSafeFunction to_js_;
  int64_t unsettled_ = 0;  // JS thread only: the event loop stays alive while it is > 0
  bool closed_ = false;
};

class EngineObject : public Napi::ObjectWrap<EngineObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit EngineObject(const Napi::CallbackInfo& info);
  ~EngineObject() override;
  const std::shared_ptr<Jobs>& jobs() const { return jobs_; }

 private:
  Napi::Value load_policy(const Napi::CallbackInfo& info);
  Napi::Value create_trainer(const Napi::CallbackInfo& info);
  Napi::Value fused_loss(const Napi::CallbackInfo& info);
  Napi::Value token_loss(const Napi::CallbackInfo& info);
  Napi::Value class_thresholds(const Napi::CallbackInfo& info);
  Napi::Value pending(const Napi::CallbackInfo& info);
  void shutdown(const Napi::CallbackInfo& info);

  std::shared_ptr<Jobs> jobs_;
};

// Turns whatever C++ throws inside `body` into a JS exception with a code.
Napi::Error to_js_error(Napi::Env env, const Failure& failure);
template <typename Body>
auto guarded(Napi::Env env, Body&& body) -> decltype(body()) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw to_js_error(env, current_failure());
  }
}

}  // namespace archer::binding
