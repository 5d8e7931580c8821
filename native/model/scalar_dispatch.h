// From a tensor's dtype to the kernels' scalar type: float, double, or uint16_t for bfloat16.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "core/error.h"

namespace archer {

template <typename Body>
void dispatch_scalar(at::ScalarType dtype, Body&& body) {
  if (dtype == at::kFloat) return body(float{});
  if (dtype == at::kBFloat16) return body(uint16_t{});
  if (dtype == at::kDouble) return body(double{});
  throw ArcherError(kInternal, std::string("no kernel for the dtype ") + c10::toString(dtype));
}

template <typename T>
const T* data(const at::Tensor& tensor) {
  return static_cast<const T*>(tensor.const_data_ptr());
}
template <typename T>
T* mutable_data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

}  // namespace archer
