#include "core/flat_tensors.h"

#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

namespace archer {
namespace {

// Elements that a tensor takes: whole lines of 64 bytes.
int64_t padded(const std::vector<int64_t>& shape, at::ScalarType dtype) {
  const int64_t line = 64 / static_cast<int64_t>(c10::elementSize(dtype));
  return (c10::multiply_integers(shape) + line - 1) / line * line;
}

}  // namespace

int64_t flat_bytes(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype) {
  int64_t elements = 0;
  for (const std::vector<int64_t>& shape : shapes) elements += padded(shape, dtype);
  return elements * static_cast<int64_t>(c10::elementSize(dtype));
}

std::vector<at::Tensor> flat_tensors(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype, at::Device device) {
  const int64_t elements = flat_bytes(shapes, dtype) / static_cast<int64_t>(c10::elementSize(dtype));
  const at::Tensor memory = at::empty({elements}, at::TensorOptions(dtype).device(device));
  std::vector<at::Tensor> tensors;
  int64_t begin = 0;
  for (const std::vector<int64_t>& shape : shapes) {
    tensors.push_back(memory.narrow(0, begin, c10::multiply_integers(shape)).view(shape));
    begin += padded(shape, dtype);
  }
  return tensors;
}

std::vector<at::Tensor> flat_zeros_like(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<int64_t>> shapes;
  for (const at::Tensor& tensor : tensors) shapes.push_back(tensor.sizes().vec());
  if (tensors.empty()) return {};
  std::vector<at::Tensor> zeros = flat_tensors(shapes, tensors.front().scalar_type(), tensors.front().device());
  for (at::Tensor& tensor : zeros) tensor.zero_();
  return zeros;
}

}  // namespace archer
