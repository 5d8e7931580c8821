// Launches of head_rows.cu, for whoever has the CUDA runtime's headers; head_rows.h has the parameters.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/head_rows.h"

namespace archer {

// `plan` as from plan_head_rows() or of one's own: cudaErrorInvalidConfiguration where the device cannot run it.
cudaError_t launch_head_rows(HeadRowsMode mode, const HeadRowsParams& params, const HeadRowsPlan& plan,
                             int num_processors, cudaStream_t stream);
cudaError_t launch_copy_rows(const CopyRowsParams& params, cudaStream_t stream);

}  // namespace archer
