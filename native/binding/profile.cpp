#include "binding/profile.h"

#include "binding/values.h"
#include "core/profile.h"

namespace archer::binding {

Napi::Value switch_profile(const Napi::CallbackInfo& info) {
  Profile::switch_on(info[0].ToBoolean().Value());
  return info.Env().Undefined();
}

Napi::Value take_spans(const Napi::CallbackInfo& info) {
  int64_t lost = 0;
  const std::vector<Span> spans = Profile::take(lost);
  Napi::Array names = Napi::Array::New(info.Env(), spans.size());
  std::vector<double> begins, ends;
  for (size_t i = 0; i < spans.size(); ++i) {
    const Span& span = spans[i];
    names[static_cast<uint32_t>(i)] = span.index < 0 ? std::string(span.name) : span.name + (" " + std::to_string(span.index));
    begins.push_back(1e-3 * static_cast<double>(span.begin_ns));
    ends.push_back(1e-3 * static_cast<double>(span.end_ns));
  }
  Napi::Object result = Napi::Object::New(info.Env());
  result.Set("names", names);
  result.Set("beginUs", to_js(info.Env(), begins));
  result.Set("endUs", to_js(info.Env(), ends));
  result.Set("lost", static_cast<double>(lost));
  return result;
}

}  // namespace archer::binding
