// Launches of decode.cu, for whoever has the CUDA runtime's headers; decode_ops.h has the parameters.
#pragma once
#include <cuda_runtime_api.h>

#include "kernels/decode_ops.h"

namespace archer {

cudaError_t launch_norm_rows(const NormRowsParams& params, cudaStream_t stream);
cudaError_t launch_append_keys(const AppendParams& params, cudaStream_t stream);
cudaError_t launch_attention(const AttentionParams& params, cudaStream_t stream);
cudaError_t launch_prefill_attention(const PrefillParams& params, cudaStream_t stream);
cudaError_t launch_swiglu(const SwigluParams& params, cudaStream_t stream);
cudaError_t launch_sample(const SampleParams& params, cudaStream_t stream);

}  // namespace archer
