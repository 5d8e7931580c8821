// A GPU for libtorch on the CPU: tensors of the device PrivateUse1 lie in host memory that nothing but what is registered here can
// reach, so that an operator which the training passes should not need, or a tensor on the wrong side, is an error of the dispatcher.
// Flash attention is plain loops over float32.
#pragma once
#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorShape.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/gpu.h"

namespace archer::emulated {

inline const at::Device kGpu(at::DeviceType::PrivateUse1, 0);

// New memory is NaN.
struct Allocator final : at::Allocator {
  at::DataPtr allocate(size_t bytes) override {
    void* memory = std::aligned_alloc(256, (bytes + 511) / 256 * 256);
    std::memset(memory, 0xFF, (bytes + 511) / 256 * 256);
    return {memory, memory, &std::free, kGpu};
  }
  at::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
inline Allocator allocator;

struct Guard final : c10::impl::DeviceGuardImplInterface {
  at::DeviceType type() const override { return at::DeviceType::PrivateUse1; }
  at::Device exchangeDevice(at::Device) const override { return kGpu; }
  at::Device getDevice() const override { return kGpu; }
  void setDevice(at::Device) const override {}
  void uncheckedSetDevice(at::Device) const noexcept override {}
  c10::Stream getStream(at::Device) const override { return c10::Stream(c10::Stream::DEFAULT, kGpu); }
  c10::Stream exchangeStream(c10::Stream) const override { return c10::Stream(c10::Stream::DEFAULT, kGpu); }
  at::DeviceIndex deviceCount() const noexcept override { return 1; }
};

// The same memory as a tensor of the CPU.
inline at::Tensor on_cpu(const at::Tensor& tensor) {
  if (tensor.is_cpu()) return tensor;
  return at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(), tensor.options().device(at::kCPU));
}

inline at::Tensor empty(c10::SymIntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                        std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}
inline at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<at::ScalarType> dtype,
                                std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype.value_or(at::kFloat));
}
inline at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                             std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
      offset ? std::optional<int64_t>(offset->expect_int()) : std::nullopt);
}
inline at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}
inline at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}
inline at::Tensor& zero(at::Tensor& self) {
  on_cpu(self).zero_();
  return self;
}

// Calls body(q0, length) for each sequence.
template <typename Body>
void for_sequences(const at::Tensor& offsets, Body body) {
  const int32_t* at = offsets.const_data_ptr<int32_t>();
  for (int64_t i = 0; i + 1 < offsets.numel(); ++i) body(at[i], at[i + 1] - at[i]);
}

// [heads, L, D] in float32 of tokens [first, first + length), key/value heads repeated.
inline at::Tensor heads_of(const at::Tensor& x, int64_t first, int64_t length, int64_t heads) {
  return on_cpu(x).narrow(0, first, length).to(at::kFloat).transpose(0, 1).repeat_interleave(heads / x.size(1), 0);
}
inline at::Tensor scores_of(const at::Tensor& q, const at::Tensor& k) {
  const at::Tensor scores = q.matmul(k.transpose(1, 2)) / std::sqrt(static_cast<double>(q.size(2)));
  const at::Tensor future = at::ones({q.size(1), q.size(1)}, at::kBool).triu(1);
  return scores.masked_fill(future, -std::numeric_limits<double>::infinity());
}

inline void flash_forward(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const auto arguments = torch::jit::last(*stack, 17);
  const at::Tensor q = arguments[0].toTensor(), k = arguments[1].toTensor(), v = arguments[2].toTensor();
  const at::Tensor offsets = on_cpu(arguments[3].toTensor());
  TORCH_CHECK(arguments[8].toBool() && arguments[7].toDouble() == 0.0 && arguments[5].toInt() == arguments[6].toInt());
  TORCH_CHECK(q.scalar_type() == at::kBFloat16 && q.dim() == 3 && q.size(2) % 8 == 0 && q.stride(2) == 1);
  const at::Tensor out = at::empty(q.sizes(), q.options());
  const at::Tensor lse = at::empty({q.size(1), q.size(0)}, q.options().dtype(at::kFloat));
  for_sequences(offsets, [&](int64_t first, int64_t length) {
    TORCH_CHECK(length <= arguments[5].toInt());
    const at::Tensor scores = scores_of(heads_of(q, first, length, q.size(1)), heads_of(k, first, length, q.size(1)));
    on_cpu(out).narrow(0, first, length).copy_(scores.softmax(2).matmul(heads_of(v, first, length, q.size(1))).transpose(0, 1));
    on_cpu(lse).narrow(1, first, length).copy_(scores.logsumexp(2));
  });
  torch::jit::drop(*stack, 17);
  const at::Tensor none = at::empty({0}, q.options());
  for (const at::Tensor& result : {out, lse, none, none, none}) stack->emplace_back(result);
}

inline void flash_backward(const c10::OperatorHandle&, torch::jit::Stack* stack) {
  const auto arguments = torch::jit::last(*stack, 17);
  const at::Tensor dout = arguments[0].toTensor(), q = arguments[1].toTensor(), k = arguments[2].toTensor();
  const at::Tensor v = arguments[3].toTensor(), out = arguments[4].toTensor(), lse = arguments[5].toTensor();
  const at::Tensor offsets = on_cpu(arguments[6].toTensor());
  TORCH_CHECK(at::globalContext().deterministicAlgorithms() && arguments[11].toBool());
  TORCH_CHECK(lse.size(0) == q.size(1) && lse.size(1) == q.size(0) && lse.scalar_type() == at::kFloat);
  const at::Tensor dq = at::empty(q.sizes(), q.options()), dk = at::empty(k.sizes(), k.options()), dv = at::empty(v.sizes(), v.options());
  const int64_t heads = q.size(1), kv_heads = k.size(1), group = heads / kv_heads;
  const double scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
  for_sequences(offsets, [&](int64_t first, int64_t length) {
    const auto of = [&](const at::Tensor& x) { return heads_of(x, first, length, heads); };
    const at::Tensor p = (scores_of(of(q), of(k)) - on_cpu(lse).narrow(1, first, length).unsqueeze(2)).exp();
    const at::Tensor delta = (of(dout) * of(out)).sum(2, true);
    const at::Tensor ds = p * (of(dout).matmul(of(v).transpose(1, 2)) - delta) * scale;
    const auto store = [&](const at::Tensor& to, const at::Tensor& grad) {
      const at::Tensor summed = to.size(1) == heads ? grad : grad.view({kv_heads, group, length, -1}).sum(1);
      on_cpu(to).narrow(0, first, length).copy_(summed.transpose(0, 1));
    };
    store(dq, ds.matmul(of(k)));
    store(dk, ds.transpose(1, 2).matmul(of(q)));
    store(dv, p.transpose(1, 2).matmul(of(dout)));
  });
  torch::jit::drop(*stack, 17);
  for (const at::Tensor& result : {dq, dk, dv}) stack->emplace_back(result);
}

}  // namespace archer::emulated

C10_REGISTER_GUARD_IMPL(PrivateUse1, archer::emulated::Guard)

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  c10::SetAllocator(at::DeviceType::PrivateUse1, &archer::emulated::allocator);
  library.impl("empty.memory_format", TORCH_FN(archer::emulated::empty));
  library.impl("empty_strided", TORCH_FN(archer::emulated::empty_strided));
  library.impl("as_strided", TORCH_FN(archer::emulated::as_strided));
  library.impl("view", TORCH_FN(archer::emulated::view));
  library.impl("_copy_from", TORCH_FN(archer::emulated::copy_from));
  library.impl("zero_", TORCH_FN(archer::emulated::zero));
  library.impl("_flash_attention_forward", torch::CppFunction::makeFromBoxedFunction<&archer::emulated::flash_forward>());
  library.impl("_flash_attention_backward", torch::CppFunction::makeFromBoxedFunction<&archer::emulated::flash_backward>());
}
