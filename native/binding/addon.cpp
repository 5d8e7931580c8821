// The module: what JS sees when the .node is loaded (lib/native/types.ts, NativeModule).
#include <ATen/Version.h>
#include <ATen/native/DispatchStub.h>
#include <napi.h>
#include <torch/headeronly/version.h>

#include <fstream>
#include <string>

#include "binding/engine.h"
#include "binding/memory.h"
#include "binding/policy.h"
#include "binding/profile.h"
#include "binding/trainer.h"
#include "kernels/cpu_isa.h"

namespace archer::binding {
namespace {

Napi::Value build_info(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("libtorch", TORCH_VERSION);
  result.Set("compiler", "g++ " __VERSION__);
#ifdef _OPENMP
  result.Set("openmp", true);
#else
  result.Set("openmp", false);
#endif
  result.Set("cpuCapability", at::get_cpu_capability());
  result.Set("cpuIsa", cpu_isa_name(cpu_isa()));
  return result;
}

// Bytes of one line of /proc/self/status, 0 where there is none.
double status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key, 0) == 0) return std::stod(line.substr(key.size())) * 1024.0;
  }
  return 0.0;
}

Napi::Value memory_stats(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("rssBytes", status_bytes("VmRSS:"));
  result.Set("peakRssBytes", status_bytes("VmHWM:"));
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto* data = new Constructors{};
  const auto expose = [&](Napi::FunctionReference& reference, const char* name, Napi::Function constructor) {
    reference = Napi::Persistent(constructor);
    exports.Set(name, constructor);
  };
  expose(data->job_control, "JobControl", JobControlObject::define(env));
  expose(data->engine, "Engine", EngineObject::define(env));
  data->policy = Napi::Persistent(PolicyObject::define(env));
  data->trainer = Napi::Persistent(TrainerObject::define(env));
  env.SetInstanceData<Constructors>(data);
  exports.Set("buildInfo", Napi::Function::New<build_info>(env, "buildInfo"));
  exports.Set("memoryStats", Napi::Function::New<memory_stats>(env, "memoryStats"));
  exports.Set("memoryParts", Napi::Function::New<memory_parts>(env, "memoryParts"));
  exports.Set("switchProfile", Napi::Function::New<switch_profile>(env, "switchProfile"));
  exports.Set("takeSpans", Napi::Function::New<take_spans>(env, "takeSpans"));
  return exports;
}

NODE_API_MODULE(archer_native, init)

}  // namespace
}  // namespace archer::binding
