// The functions of ops.h, row_gradients.h and packed_attention.h on a GPU, with their legends.
#pragma once
#include "core/gpu.h"
#include "model/attention_buckets.h"
#include "model/ops.h"

namespace archer {

void gpu_rms_norm(Gpu& gpu, const at::Tensor& x, const at::Tensor& weight, double eps, const at::Tensor& out, const at::Tensor& rstd);
void gpu_rms_norm_backward(Gpu& gpu, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rstd, const at::Tensor& wide_dy,
                           const at::Tensor& wide_sum, const at::Tensor& rounded, const at::Tensor& grad_weight);
void gpu_swiglu(Gpu& gpu, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& out);
void gpu_swiglu_backward(Gpu& gpu, const at::Tensor& gate, const at::Tensor& up, const at::Tensor& dy, const at::Tensor& y);
void gpu_rotate(Gpu& gpu, const at::Tensor& x, const Rotation& rotation, const at::Tensor& out);
void gpu_rotate_backward(Gpu& gpu, const at::Tensor& wide_grad, const Rotation& rotation, const at::Tensor& rounded);

// out[i] = rows[ids[i]] and the other way round, out[ids[i]] = rows[i]; ids on the host.
void gpu_gather(Gpu& gpu, const at::Tensor& rows, const std::vector<int32_t>& ids, const at::Tensor& out);
void gpu_scatter(Gpu& gpu, const at::Tensor& rows, const std::vector<int32_t>& ids, const at::Tensor& out);
// grad_VH[ids_T[t]] += wide_dx_TH[t], every row of grad in the order of its tokens.
void gpu_embedding_backward(Gpu& gpu, const at::Tensor& ids_T, const at::Tensor& wide_dx_TH, const at::Tensor& grad_VH);

// libtorch's flash attention over packed sequences, which its own GPU builds alone have; D a multiple of 8, at most 256.
void gpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const AttentionPlan& plan, int64_t head_dim,
                   const at::Tensor& out, const at::Tensor& lse_TH);
// In a fixed order of additions: the same bits every time.
void gpu_attention_backward(const at::Tensor& dout, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const at::Tensor& out, const at::Tensor& lse_TH, const AttentionPlan& plan, int64_t head_dim,
                            const at::Tensor& wide_dq, const at::Tensor& wide_dk, const at::Tensor& dv);

}  // namespace archer
