// Instances and launches of the head's row kernels; head_rows_kernel.h has their source.
#include "kernels/gpu_primitives.cuh"
// After the primitives.
#include "kernels/head_rows_kernel.h"
#include "kernels/head_rows_launch.h"

namespace archer {
namespace {

template <typename In, int kCluster>
__global__ void __launch_bounds__(kHeadRowsThreads, 2) resident_kernel(const __grid_constant__ HeadRowsParams params) {
#if __CUDA_ARCH__ < 900
  if constexpr (kCluster == 1) gpu::resident_rows<In, kCluster, kHeadRowsThreads>(params);
#else
  gpu::resident_rows<In, kCluster, kHeadRowsThreads>(params);
#endif
}

template <typename In, HeadRowsMode kMode>
__global__ void __launch_bounds__(kHeadRowsThreads, 2) streaming_kernel(const __grid_constant__ HeadRowsParams params) {
  gpu::streaming_rows<In, kMode, kHeadRowsThreads>(params);
}

constexpr int kCopyThreads = 256;

__global__ void __launch_bounds__(kCopyThreads) copy_rows_kernel(const __grid_constant__ CopyRowsParams params) {
  gpu::copy_rows_body<kCopyThreads>(params);
}

using RowsKernel = void (*)(HeadRowsParams);

template <typename In>
RowsKernel resident_kernel_of(int cluster) {
  switch (cluster) {
    case 1: return resident_kernel<In, 1>;
    case 2: return resident_kernel<In, 2>;
    case 4: return resident_kernel<In, 4>;
    case 8: return resident_kernel<In, 8>;
    default: return nullptr;
  }
}

template <typename In>
RowsKernel streaming_kernel_of(HeadRowsMode mode) {
  if (mode == HeadRowsMode::statistics) return streaming_kernel<In, HeadRowsMode::statistics>;
  if (mode == HeadRowsMode::fused) return streaming_kernel<In, HeadRowsMode::fused>;
  return streaming_kernel<In, HeadRowsMode::gradient>;
}

template <typename Kernel, typename Params>
cudaError_t launch(Kernel kernel, int blocks, int threads, const HeadRowsPlan& plan, cudaStream_t stream,
                   const Params& params) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = plan.shared_bytes;
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  if (plan.cluster > 1) {
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim = {static_cast<unsigned>(plan.cluster), 1, 1};
    config.attrs = &attribute;
    config.numAttrs = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, params);
}

// Clusters that the device runs at once: the launch is persistent, each of them takes every n-th row.
cudaError_t active_clusters(RowsKernel kernel, const HeadRowsPlan& plan, int num_processors, int& clusters) {
  cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                           static_cast<int>(plan.shared_bytes));
  if (error != cudaSuccess) return error;
  if (plan.cluster == 1) {
    int per_processor = 0;
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel, kHeadRowsThreads, plan.shared_bytes);
    clusters = per_processor * num_processors;
    return error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(plan.cluster));
  config.blockDim = dim3(kHeadRowsThreads);
  config.dynamicSmemBytes = plan.shared_bytes;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {static_cast<unsigned>(plan.cluster), 1, 1};
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaOccupancyMaxActiveClusters(&clusters, kernel, &config);
}

}  // namespace

cudaError_t launch_head_rows(HeadRowsMode mode, const HeadRowsParams& params, const HeadRowsPlan& plan,
                             int num_processors, cudaStream_t stream) {
  if (params.num_rows <= 0 || params.vocabulary <= 0) return cudaSuccess;
  const bool is_float = params.logits_type == LogitsType::float32;
  if (plan.cluster == 0) {
    const RowsKernel kernel = is_float ? streaming_kernel_of<float>(mode) : streaming_kernel_of<gpu::Bf16>(mode);
    return launch(kernel, params.num_rows, kHeadRowsThreads, plan, stream, params);
  }
  const RowsKernel kernel = is_float ? resident_kernel_of<float>(plan.cluster)
                                     : resident_kernel_of<gpu::Bf16>(plan.cluster);
  if (mode != HeadRowsMode::fused || kernel == nullptr) return cudaErrorInvalidValue;
  int clusters = 0;
  const cudaError_t error = active_clusters(kernel, plan, num_processors, clusters);
  if (error != cudaSuccess) return error;
  if (clusters < 1) return cudaErrorInvalidConfiguration;
  if (clusters > params.num_rows) clusters = params.num_rows;
  return launch(kernel, clusters * plan.cluster, kHeadRowsThreads, plan, stream, params);
}

cudaError_t launch_copy_rows(const CopyRowsParams& params, cudaStream_t stream) {
  if (params.num_rows <= 0 || params.row_bytes <= 0) return cudaSuccess;
  return launch(copy_rows_kernel, params.num_rows, kCopyThreads, HeadRowsPlan{}, stream, params);
}

}  // namespace archer
