// What one training micro-batch keeps in memory: for every layer what its backward reads, and buffers that all layers share.
// Cheap things are not kept but computed again: normalised states, rotations after a QK norm, silu(gate) up, attention weights.
//   T tokens, H hidden, I intermediate, q = heads * D, k = kv_heads * D; "wide": float32 (float64 for a float64 model), else the
//   compute dtype. Undefined where the configuration has no use for one.
#pragma once
#include <vector>

#include "model/arena.h"
#include "model/config.h"

namespace archer {

struct LayerBuffers {
  at::Tensor input_TH, input_rstd_T;
  at::Tensor q, k, v;                // [T, q], [T, k]: q and k rotated, or as they were before the QK norm where there is one
  at::Tensor q_rstd, k_rstd;         // [T * heads], [T * kv_heads], of the QK norm
  at::Tensor mixed, logsumexp;       // attention's result [T, q]; [T, heads]
  at::Tensor middle_TH, middle_rstd_T;  // between attention and MLP
  at::Tensor gate_TI, up_TI;         // the backward overwrites them with their gradients
};

struct TrainingBuffers {
  std::vector<LayerBuffers> layers;
  at::Tensor output_TH, output_rstd_T;  // of the last layer
  at::Tensor hidden_TH;                 // after the final norm
  // Shared by the layers.
  at::Tensor normed_TH;                 // a norm's result, later the result of a projection back to H
  at::Tensor rotated_q, rotated_k;      // with a QK norm
  at::Tensor inner_TI;                  // silu(gate) * up
  // Of the backward. Gradients of the residual stream are kept wide and, as operands of products, rounded.
  at::Tensor wide_grad_TH, grad_TH, wide_grad_normed_TH, grad_inner_TI;
  at::Tensor grad_mixed, wide_grad_q, grad_q, wide_grad_k, grad_k, grad_v;

  // checkpoint: layers keep their inputs alone and share all else, which the backward computes again layer by layer.
  TrainingBuffers(Arena& arena, const ModelConfig& config, at::ScalarType dtype, int64_t tokens, bool checkpoint);
};

// Bytes that a micro-batch of `tokens` tokens takes: linear in tokens up to the rounding of buffers to cache lines.
int64_t activation_bytes(const ModelConfig& config, at::ScalarType dtype, int64_t tokens, bool checkpoint);

}  // namespace archer
