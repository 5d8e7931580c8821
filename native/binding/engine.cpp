#include "binding/engine.h"

#include <algorithm>
#include <utility>

#include "binding/loss_values.h"
#include "binding/policy.h"
#include "binding/trainer.h"
#include "binding/values.h"

namespace archer::binding {

Constructors& constructors(Napi::Env env) { return *env.GetInstanceData<Constructors>(); }

Napi::Error to_js_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message);
  error.Set("code", Napi::String::New(env, failure.code));
  if (!failure.detail.empty()) error.Set("detail", Napi::String::New(env, failure.detail));
  return error;
}

// ---- JobControl ----

Napi::Function JobControlObject::define(Napi::Env env) {
  return DefineClass(env, "JobControl",
                     {InstanceMethod<&JobControlObject::cancel>("cancel"),
                      InstanceMethod<&JobControlObject::progress>("progress"),
                      InstanceMethod<&JobControlObject::take_tokens>("takeTokens")});
}

JobControlObject::JobControlObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<JobControlObject>(info) {}

void JobControlObject::cancel(const Napi::CallbackInfo&) { control_->cancelled = true; }

Napi::Value JobControlObject::progress(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("done", static_cast<double>(control_->done.load()));
  result.Set("total", static_cast<double>(control_->total.load()));
  return result;
}

Napi::Value JobControlObject::take_tokens(const Napi::CallbackInfo& info) { return to_js(info.Env(), tokens_->take()); }

namespace {

// The JobControl of an argument; null where it was left out.
JobControlObject* control_object(const Napi::CallbackInfo& info, size_t index) {
  if (info.Length() <= index || info[index].IsUndefined()) return nullptr;
  const bool is_control = info[index].IsObject() &&
                          info[index].As<Napi::Object>().InstanceOf(constructors(info.Env()).job_control.Value());
  require(is_control, kShape, "the last argument must be a JobControl");
  return JobControlObject::Unwrap(info[index].As<Napi::Object>());
}

}  // namespace

std::shared_ptr<JobControl> control_argument(const Napi::CallbackInfo& info, size_t index) {
  const JobControlObject* object = control_object(info, index);
  return object ? object->control() : std::make_shared<JobControl>();
}

std::shared_ptr<TokenQueue> tokens_argument(const Napi::CallbackInfo& info, size_t index) {
  const JobControlObject* object = control_object(info, index);
  return object ? object->tokens() : nullptr;
}

// ---- Jobs ----

struct Jobs::Pending {
  Napi::Promise::Deferred deferred;
  MakeResult make_result;
  Failure failure;
  std::shared_ptr<Jobs> owner;  // lives until the promise is settled, and dies on the JS thread, which may join
};

Jobs::Jobs(Napi::Env env, int num_threads) : thread_(num_threads) {
  to_js_ = Napi::ThreadSafeFunction::New(env, Napi::Function(), "archer engine", 0, 1);
  to_js_.Unref(env);
}

Jobs::~Jobs() { shutdown(); }

Napi::Value Jobs::run(Napi::Env env, std::shared_ptr<JobControl> control, std::function<MakeResult()> work) {
  auto* pending = new Pending{Napi::Promise::Deferred::New(env), {}, {}, shared_from_this()};
  const Napi::Promise promise = pending->deferred.Promise();
  EngineJob job;
  job.control = control;
  job.run = [this, pending, control, work = std::move(work)]() mutable {
    try {
      control->check();
      pending->make_result = work();
    } catch (...) {
      pending->failure = current_failure();
    }
    work = nullptr;  // tensors the work captured die on this thread
    to_js_.BlockingCall(pending, [this](Napi::Env job_env, Napi::Function, Pending* done) { settle(job_env, done); });
  };
  try {
    thread_.submit(std::move(job));
  } catch (...) {
    delete pending;
    throw;
  }
  if (unsettled_++ == 0) to_js_.Ref(env);
  return promise;
}

void Jobs::settle(Napi::Env env, Pending* job) {
  std::unique_ptr<Pending> owner(job);
  if (--unsettled_ == 0 && !closed_) to_js_.Unref(env);
  if (job->failure.code.empty()) {
    try {
      job->deferred.Resolve(job->make_result(env));
      return;
    } catch (const Napi::Error& error) {
      job->deferred.Reject(error.Value());
      return;
    } catch (...) {
      job->failure = current_failure();
    }
  }
  job->deferred.Reject(to_js_error(env, job->failure).Value());
}

void Jobs::shutdown() {
  if (closed_) return;
  thread_.shutdown();  // what waited has been cancelled, and its promises will be settled as aborted
  closed_ = true;
  to_js_.Release();
}

// ---- Engine ----

Napi::Function EngineObject::define(Napi::Env env) {
  return DefineClass(env, "Engine",
                     {InstanceMethod<&EngineObject::load_policy>("loadPolicy"),
                      InstanceMethod<&EngineObject::create_trainer>("createTrainer"),
                      InstanceMethod<&EngineObject::fused_loss>("fusedLoss"),
                      InstanceMethod<&EngineObject::token_loss>("tokenLoss"),
                      InstanceMethod<&EngineObject::class_thresholds>("classThresholds"),
                      InstanceMethod<&EngineObject::pending>("pending"),
                      InstanceMethod<&EngineObject::shutdown>("shutdown")});
}

EngineObject::EngineObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<EngineObject>(info) {
  guarded(info.Env(), [&] {
    const Napi::Object options = object(info[0], "options");
    jobs_ = std::make_shared<Jobs>(info.Env(), static_cast<int>(integer(options, "numThreads")));
  });
  // When the environment of a worker thread ends, its jobs end first.
  info.Env().AddCleanupHook([jobs = std::weak_ptr<Jobs>(jobs_)] {
    if (const auto alive = jobs.lock()) alive->shutdown();
  });
}

EngineObject::~EngineObject() = default;

Napi::Value EngineObject::load_policy(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return PolicyObject::load(info, jobs_); });
}

Napi::Value EngineObject::create_trainer(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return TrainerObject::create(info, jobs_); });
}

Napi::Value EngineObject::fused_loss(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return run_fused_loss(info, *jobs_); });
}

Napi::Value EngineObject::token_loss(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return run_token_loss(info, *jobs_); });
}

Napi::Value EngineObject::class_thresholds(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return run_class_thresholds(info, *jobs_); });
}

Napi::Value EngineObject::pending(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(jobs_->pending()));
}

void EngineObject::shutdown(const Napi::CallbackInfo&) { jobs_->shutdown(); }

}  // namespace archer::binding
