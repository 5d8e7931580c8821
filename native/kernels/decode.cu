// Instances and launches of the decode step's kernels; decode_*_kernel.h have their source.
#include "kernels/gpu_primitives.cuh"
// After the primitives.
#include "kernels/decode_attention_kernel.h"
#include "kernels/decode_launch.h"
#include "kernels/decode_rows_kernel.h"
#include "kernels/decode_sample_kernel.h"
#include "kernels/prefill_attention_kernel.h"

namespace archer {
namespace {

constexpr int kAttentionThreads = gpu::kAttentionWarps * 32, kPrefillThreads = gpu::kPrefillWarps * 32;

__global__ void __launch_bounds__(kRowThreads) norm_kernel(const __grid_constant__ NormRowsParams params) {
  gpu::norm_rows<kRowThreads>(params);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kAppendThreads) append_kernel(const __grid_constant__ AppendParams params) {
  gpu::append_keys<kHeadDim, kAppendThreads>(params);
}

// Three blocks on a processor: some 96 KiB of keys and values in flight there.
template <int kHeadDim>
__global__ void __launch_bounds__(kAttentionThreads, 3)
attention_kernel(const __grid_constant__ AttentionParams params) {
  gpu::attend_split<kHeadDim>(params);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kHeadDim) merge_kernel(const __grid_constant__ AttentionParams params) {
  gpu::merge_splits<kHeadDim>(params);
}

template <int kHeadDim>
__global__ void __launch_bounds__(kPrefillThreads, 2) prefill_kernel(const __grid_constant__ PrefillParams params) {
  gpu::attend_tile<kHeadDim>(params);
}

__global__ void __launch_bounds__(kRowThreads) swiglu_kernel(const __grid_constant__ SwigluParams params) {
  gpu::swiglu_rows<kRowThreads>(params);
}

__global__ void __launch_bounds__(kPartThreads) sample_part_kernel(const __grid_constant__ SampleParams params) {
  gpu::reduce_part<kPartThreads>(params);
}

__global__ void __launch_bounds__(kChooseThreads) choose_kernel(const __grid_constant__ SampleParams params) {
  gpu::choose_token<kChooseThreads>(params);
}

template <typename Kernel, typename Params>
cudaError_t launch(Kernel kernel, int64_t blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
  if (blocks <= 0) return cudaSuccess;
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), shared_bytes, stream>>>(params);
  return cudaGetLastError();
}

template <int kHeadDim>
cudaError_t launch_attention_of(const AttentionParams& params, cudaStream_t stream) {
  const int64_t pairs = static_cast<int64_t>(params.num_rows) * params.num_kv_heads;
  const cudaError_t error = launch(attention_kernel<kHeadDim>, pairs * params.num_splits, kAttentionThreads,
                                   gpu::attention_shared_bytes(kHeadDim), stream, params);
  if (error != cudaSuccess) return error;
  return launch(merge_kernel<kHeadDim>, static_cast<int64_t>(params.num_rows) * params.num_heads, kHeadDim, 0, stream,
                params);
}

template <int kHeadDim>
cudaError_t launch_prefill_of(const PrefillParams& params, cudaStream_t stream) {
  constexpr size_t kShared = gpu::prefill_shared_bytes(kHeadDim);
  // More than 48 KiB must be asked for, on each device anew.
  const cudaError_t error = cudaFuncSetAttribute(prefill_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                 static_cast<int>(kShared));
  if (error != cudaSuccess) return error;
  return launch(prefill_kernel<kHeadDim>, static_cast<int64_t>(params.num_tiles) * params.num_heads, kPrefillThreads,
                kShared, stream, params);
}

}  // namespace

cudaError_t launch_norm_rows(const NormRowsParams& params, cudaStream_t stream) {
  return launch(norm_kernel, params.num_rows, kRowThreads, sizeof(float) * kRowThreads / 32, stream, params);
}

cudaError_t launch_append_keys(const AppendParams& params, cudaStream_t stream) {
  constexpr int kWarps = kAppendThreads / 32;
  const int64_t heads = static_cast<int64_t>(params.num_rows) * (params.num_heads + 2 * params.num_kv_heads);
  const int64_t blocks = (heads + kWarps - 1) / kWarps;
  if (params.head_dim == 64) return launch(append_kernel<64>, blocks, kAppendThreads, 0, stream, params);
  if (params.head_dim == 128) return launch(append_kernel<128>, blocks, kAppendThreads, 0, stream, params);
  return cudaErrorInvalidValue;
}

cudaError_t launch_attention(const AttentionParams& params, cudaStream_t stream) {
  if (params.head_dim == 64) return launch_attention_of<64>(params, stream);
  if (params.head_dim == 128) return launch_attention_of<128>(params, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_prefill_attention(const PrefillParams& params, cudaStream_t stream) {
  if (params.head_dim == 64) return launch_prefill_of<64>(params, stream);
  if (params.head_dim == 128) return launch_prefill_of<128>(params, stream);
  return cudaErrorInvalidValue;
}

cudaError_t launch_swiglu(const SwigluParams& params, cudaStream_t stream) {
  const int64_t vectors = static_cast<int64_t>(params.num_rows) * (params.intermediate_size / 8);
  return launch(swiglu_kernel, (vectors + kRowThreads - 1) / kRowThreads, kRowThreads, 0, stream, params);
}

cudaError_t launch_sample(const SampleParams& params, cudaStream_t stream) {
  const int64_t parts = num_sample_parts(params.vocabulary);
  const cudaError_t error = launch(sample_part_kernel, params.num_rows * parts, kPartThreads,
                                   sizeof(float) * 4 * kPartThreads / 32, stream, params);
  if (error != cudaSuccess) return error;
  return launch(choose_kernel, params.num_rows, kChooseThreads, gpu::sample_shared_bytes(params.vocabulary), stream,
                params);
}

}  // namespace archer
