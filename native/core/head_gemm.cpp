// The head's matrix products; see head_gemm.h.
#include "core/head_gemm.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <string>

#include "core/error.h"

// MKL inside libtorch_cpu.so (LP64 interface: 32-bit sizes, enums are int). Weak: absent on other architectures.
extern "C" void cblas_gemm_bf16bf16f32(int layout, int trans_a, int trans_b, int m, int n, int k, float alpha,
                                       const uint16_t* a, int lda, const uint16_t* b, int ldb, float beta, float* c,
                                       int ldc) __attribute__((weak));

namespace archer {
namespace {

constexpr int kRowMajor = 101, kNoTrans = 111, kTrans = 112;
constexpr int64_t kCastBlock = 4096;    // rows of the head cast to float32 at once on the path without MKL
constexpr int64_t kLogitsBlock = 1024;  // columns of logits per MKL call: a fifth faster than all 49,152 in one (AMX)

bool use_mkl = true;

bool mkl_path() { return use_mkl && mkl_bf16_gemm_available(); }

const uint16_t* bits(const at::Tensor& tensor) { return static_cast<const uint16_t*>(tensor.const_data_ptr()); }

int size32(const at::Tensor& tensor, int dim) {
  const int64_t size = tensor.size(dim);
  require(size <= INT32_MAX, kShape, "a matrix side of " + std::to_string(size) + " is beyond 32-bit BLAS sizes");
  return static_cast<int>(size);
}

void require_contiguous(const at::Tensor& a, const at::Tensor& b, const at::Tensor& c) {
  require(a.is_contiguous() && b.is_contiguous() && c.is_contiguous(), kInternal,
          "the head's products need contiguous tensors");
}

// body(first id, number of ids)
template <typename Body>
void for_vocabulary_blocks(int64_t vocabulary, int64_t block, Body body) {
  for (int64_t v = 0; v < vocabulary; v += block) body(v, std::min(block, vocabulary - v));
}

}  // namespace

bool mkl_bf16_gemm_available() { return cblas_gemm_bf16bf16f32 != nullptr; }
void use_mkl_bf16_gemm(bool use) { use_mkl = use; }

void head_logits(const at::Tensor& hidden_RH, const at::Tensor& head_VH, at::Tensor& logits_RV) {
  require_contiguous(hidden_RH, head_VH, logits_RV);
  if (hidden_RH.scalar_type() != at::kBFloat16) {
    at::mm_out(logits_RV, hidden_RH, head_VH.t());
  } else if (mkl_path()) {
    const int rows = size32(hidden_RH, 0), hidden = size32(hidden_RH, 1), vocabulary = size32(head_VH, 0);
    float* logits = logits_RV.data_ptr<float>();
    for_vocabulary_blocks(vocabulary, kLogitsBlock, [&](int64_t v, int64_t n) {
      cblas_gemm_bf16bf16f32(kRowMajor, kNoTrans, kTrans, rows, static_cast<int>(n), hidden, 1.0f, bits(hidden_RH),
                             hidden, bits(head_VH) + v * hidden, hidden, 0.0f, logits + v, vocabulary);
    });
  } else {
    const at::Tensor hidden = hidden_RH.to(at::kFloat);
    for_vocabulary_blocks(head_VH.size(0), kCastBlock, [&](int64_t v, int64_t n) {
      logits_RV.narrow(1, v, n).copy_(at::mm(hidden, head_VH.narrow(0, v, n).to(at::kFloat).t()));
    });
  }
}

void head_grad_hidden(const at::Tensor& dlogits_RV, const at::Tensor& head_VH, at::Tensor& grad_hidden_RH) {
  require_contiguous(dlogits_RV, head_VH, grad_hidden_RH);
  if (dlogits_RV.scalar_type() != at::kBFloat16) {
    at::mm_out(grad_hidden_RH, dlogits_RV, head_VH);
  } else if (mkl_path()) {
    const int rows = size32(dlogits_RV, 0), hidden = size32(head_VH, 1), vocabulary = size32(head_VH, 0);
    cblas_gemm_bf16bf16f32(kRowMajor, kNoTrans, kNoTrans, rows, hidden, vocabulary, 1.0f, bits(dlogits_RV), vocabulary,
                           bits(head_VH), hidden, 0.0f, grad_hidden_RH.data_ptr<float>(), hidden);
  } else {
    grad_hidden_RH.zero_();
    for_vocabulary_blocks(head_VH.size(0), kCastBlock, [&](int64_t v, int64_t n) {
      grad_hidden_RH.addmm_(dlogits_RV.narrow(1, v, n).to(at::kFloat), head_VH.narrow(0, v, n).to(at::kFloat));
    });
  }
}

void head_grad_weight(const at::Tensor& dlogits_RV, const at::Tensor& hidden_RH, at::Tensor& grad_head_VH) {
  require_contiguous(dlogits_RV, hidden_RH, grad_head_VH);
  if (dlogits_RV.scalar_type() != at::kBFloat16) {
    grad_head_VH.addmm_(dlogits_RV.t(), hidden_RH);
  } else if (mkl_path()) {
    const int rows = size32(dlogits_RV, 0), hidden = size32(hidden_RH, 1), vocabulary = size32(dlogits_RV, 1);
    cblas_gemm_bf16bf16f32(kRowMajor, kTrans, kNoTrans, vocabulary, hidden, rows, 1.0f, bits(dlogits_RV), vocabulary,
                           bits(hidden_RH), hidden, 1.0f, grad_head_VH.data_ptr<float>(), hidden);
  } else {
    const at::Tensor hidden = hidden_RH.to(at::kFloat);
    for_vocabulary_blocks(grad_head_VH.size(0), kCastBlock, [&](int64_t v, int64_t n) {
      grad_head_VH.narrow(0, v, n).addmm_(dlogits_RV.narrow(1, v, n).to(at::kFloat).t(), hidden);
    });
  }
}

}  // namespace archer
