#include "binding/tensor_table.h"

#include "binding/values.h"

namespace archer::binding {

std::vector<TensorEntry> tensor_table(const Napi::Value& value) {
  require(value.IsArray(), kShape, "tensors must be an array");
  const auto list = value.As<Napi::Array>();
  std::vector<TensorEntry> table;
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Object item = object(list.Get(i), "a tensor entry");
    TensorEntry entry;
    entry.name = text(item, "name");
    entry.dtype = text(item, "dtype");
    entry.file = text(item, "file");
    entry.begin = integer(item, "begin");
    entry.end = integer(item, "end");
    require(item.Get("shape").IsArray(), kShape, "shape must be an array");
    const auto shape = item.Get("shape").As<Napi::Array>();
    for (uint32_t d = 0; d < shape.Length(); ++d) entry.shape.push_back(shape.Get(d).ToNumber().Int64Value());
    table.push_back(std::move(entry));
  }
  return table;
}

}  // namespace archer::binding
