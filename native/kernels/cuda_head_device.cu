// See cuda_head_device.h.
#include "kernels/cuda_head_device.h"

#include "kernels/cuda_gpu.h"
#include "kernels/head_rows_launch.h"

namespace archer {
namespace {

class CudaHeadDevice : public CudaGpu<HeadDevice> {
 public:
  explicit CudaHeadDevice(const CudaHeadOptions& options)
      : CudaGpu(options),
        cluster_(options.cluster),
        num_processors_(attribute(cudaDevAttrMultiProcessorCount)),
        max_cluster_(attribute(cudaDevAttrComputeCapabilityMajor) >= 9 && attribute(cudaDevAttrClusterLaunch) != 0
                         ? kMaxCluster : 1),
        shared_bytes_(static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin))) {}

  void multiply_logits(const uint16_t* hidden_RH, const uint16_t* head_VH, void* logits, LogitsType type,
                       int64_t stride, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    gemm("logits", cublas::kTransposed, cublas::kNotTransposed, vocabulary, num_rows, hidden_size, head_VH, hidden_size,
         hidden_RH, hidden_size, 0.0f, logits, type == LogitsType::float32 ? cublas::kFloat32 : cublas::kBFloat16,
         stride);
  }
  void multiply_grad_hidden(const uint16_t* dlogits, int64_t stride, const uint16_t* head_VH, void* grad_RH,
                            bool grad_is_float, int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    gemm("the gradient of the hidden states", cublas::kNotTransposed, cublas::kNotTransposed, hidden_size, num_rows,
         vocabulary, head_VH, hidden_size, dlogits, stride, 0.0f, grad_RH,
         grad_is_float ? cublas::kFloat32 : cublas::kBFloat16, hidden_size);
  }
  void multiply_grad_head(const uint16_t* dlogits, int64_t stride, const uint16_t* hidden_RH, float* grad_VH,
                          int64_t num_rows, int64_t hidden_size, int64_t vocabulary) override {
    gemm("the gradient of the head", cublas::kNotTransposed, cublas::kTransposed, hidden_size, vocabulary, num_rows,
         hidden_RH, hidden_size, dlogits, stride, 1.0f, grad_VH, cublas::kFloat32, hidden_size);
  }

  void run_rows(HeadRowsMode mode, const HeadRowsParams& params) override {
    use();
    const bool planned = cluster_ < 0 || mode != HeadRowsMode::fused;
    HeadRowsPlan plan = plan_head_rows(mode, params.vocabulary, params.logits_type, shared_bytes_, max_cluster_);
    if (!planned) {
      plan = {cluster_, cluster_ > 0 ? resident_bytes(params.vocabulary, cluster_, params.logits_type)
                                     : kSharedHeaderBytes};
    }
    cudaError_t error = launch_head_rows(mode, params, plan, num_processors_, stream());
    if (planned && plan.cluster > 0 && error != cudaSuccess) {  // a partitioned GPU may have no room for the cluster
      cudaGetLastError();
      error = launch_head_rows(mode, params, {0, kSharedHeaderBytes}, num_processors_, stream());
    }
    check_cuda(error, "Starting the head's row kernel");
  }
  void copy_rows(const CopyRowsParams& params) override {
    use();
    check_cuda(launch_copy_rows(params, stream()), "Starting the kernel that copies rows");
  }

 private:
  int cluster_, num_processors_, max_cluster_;
  size_t shared_bytes_;
};

}  // namespace

std::unique_ptr<HeadDevice> cuda_head_device(const CudaHeadOptions& options) {
  return std::make_unique<CudaHeadDevice>(options);
}

}  // namespace archer
