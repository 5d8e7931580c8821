// The launch of layer_rows.cu, for whoever has the CUDA runtime's headers; layer_ops.h has the parameters.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/layer_ops.h"

namespace archer {

cudaError_t launch_layer(const LayerWork& work, cudaStream_t stream);

}  // namespace archer
