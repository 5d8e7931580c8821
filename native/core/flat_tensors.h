// Many tensors in one allocation, each at a multiple of 64 bytes: the weights, the gradients, the moments. The kernel gives huge
// pages to large allocations alone, and most matrices of a small model are below 2 MB; decoding reads them all at every token.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

namespace archer {

// What flat_tensors() takes.
int64_t flat_bytes(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype);

// Not initialized, contiguous.
std::vector<at::Tensor> flat_tensors(const std::vector<std::vector<int64_t>>& shapes, at::ScalarType dtype,
                                     at::Device device = at::kCPU);

// The same with zeros, in the shapes, the dtype and on the device of `tensors`, which must agree in both.
std::vector<at::Tensor> flat_zeros_like(const std::vector<at::Tensor>& tensors);

}  // namespace archer
