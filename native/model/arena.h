// One allocation that serves a whole pass over the layers: tensors are laid out one behind the other and never freed one by one. The
// same walk over the layout first counts and then takes, so a plan's number and the allocation cannot differ.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

namespace archer {

class Arena {
 public:
  // Counts only: take() returns undefined tensors.
  Arena() = default;
  // Takes from `memory`, bytes as counted before.
  explicit Arena(const at::Tensor& memory) : memory_(memory) {}

  at::Tensor take(at::IntArrayRef sizes, at::ScalarType dtype) {
    const int64_t bytes = c10::multiply_integers(sizes) * static_cast<int64_t>(c10::elementSize(dtype));
    const int64_t begin = bytes_;
    bytes_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    return memory_.defined() ? memory_.narrow(0, begin, bytes).view(dtype).view(sizes) : at::Tensor();
  }

  int64_t bytes() const { return bytes_; }

 private:
  static constexpr int64_t kAlignment = 64;  // cache lines and tiles; libtorch's own blocks begin at one
  at::Tensor memory_;
  int64_t bytes_ = 0;
};

}  // namespace archer
