// The three matrix products of the output head, with float32 results from bfloat16 inputs:
//   logits_RV = hidden_RH head_VHᵀ;  grad_hidden_RH = dlogits_RV head_VH;  grad_head_VH += dlogits_RVᵀ hidden_RH
// ATen's bfloat16 mm rounds its result to bfloat16, which costs logp up to 0.1 nats; MKL's bf16bf16f32 does not. Where
// libtorch brings no MKL, blocks of the vocabulary are cast to float32.
// Legend: R rows of a chunk, H hidden size, V vocabulary. dtypes: all float32, all float64, or bfloat16 (hidden, head,
// dlogits) with float32 (logits, gradients). Tensors are row-major and contiguous.
#pragma once
#include <ATen/core/Tensor.h>

namespace archer {

void head_logits(const at::Tensor& hidden_RH, const at::Tensor& head_VH, at::Tensor& logits_RV);
void head_grad_hidden(const at::Tensor& dlogits_RV, const at::Tensor& head_VH, at::Tensor& grad_hidden_RH);
void head_grad_weight(const at::Tensor& dlogits_RV, const at::Tensor& hidden_RH, at::Tensor& grad_head_VH);

// The path of machines without MKL, which tests take on purpose. Not thread-safe; true by default where MKL is.
bool mkl_bf16_gemm_available();
void use_mkl_bf16_gemm(bool use);

}  // namespace archer
