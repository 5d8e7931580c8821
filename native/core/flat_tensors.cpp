#include "core/flat_tensors.h"

#include <ATen/ops/empty.h>
#include <c10/util/accumulate.h>

namespace archer {

std::vector<at::Tensor> flat_tensors(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype) {
  const int64_t line = 64 / static_cast<int64_t>(c10::elementSize(dtype));
  std::vector<int64_t> begins;
  int64_t elements = 0;
  for (const std::vector<int64_t>& shape : shapes) {
    begins.push_back(elements);
    elements += (c10::multiply_integers(shape) + line - 1) / line * line;
  }
  const at::Tensor memory = at::empty({elements}, dtype);
  std::vector<at::Tensor> tensors;
  for (size_t i = 0; i < shapes.size(); ++i) {
    tensors.push_back(memory.narrow(0, begins[i], c10::multiply_integers(shapes[i])).view(shapes[i]));
  }
  return tensors;
}

std::vector<at::Tensor> flat_zeros_like(const std::vector<at::Tensor>& tensors) {
  std::vector<std::vector<int64_t>> shapes;
  for (const at::Tensor& tensor : tensors) shapes.push_back(tensor.sizes().vec());
  std::vector<at::Tensor> zeros = flat_tensors(shapes, tensors.empty() ? at::kFloat : tensors.front().scalar_type());
  for (at::Tensor& tensor : zeros) tensor.zero_();
  return zeros;
}

}  // namespace archer
