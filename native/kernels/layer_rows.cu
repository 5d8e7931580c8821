// Instances and launches of the kernels of layer_ops.h; layer_rows_kernel.h has their source.
#include "kernels/gpu_primitives.cuh"
// After the primitives.
#include "kernels/layer_launch.h"
#include "kernels/layer_rows_kernel.h"

namespace archer {
namespace {

template <typename Params>
__global__ void __launch_bounds__(kLayerThreads) layer_kernel(const __grid_constant__ Params params) {
  gpu::layer_kernel<kLayerThreads>(params);
}

}  // namespace

cudaError_t launch_layer(const LayerWork& work, cudaStream_t stream) {
  return std::visit(
      [&](const auto& params) {
        const int64_t blocks = num_layer_blocks(params, kLayerThreads);
        if (blocks <= 0) return cudaSuccess;
        constexpr size_t kSharedBytes = sizeof(double) * kLayerThreads / 32;
        layer_kernel<<<static_cast<unsigned>(blocks), kLayerThreads, kSharedBytes, stream>>>(params);
        return cudaGetLastError();
      },
      work);
}

}  // namespace archer
