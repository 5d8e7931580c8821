// See cuda_layer_device.h.
#include "kernels/cuda_layer_device.h"

#include "kernels/cuda_gpu.h"
#include "kernels/layer_launch.h"

namespace archer {
namespace {

class CudaLayerDevice : public CudaGpu<LayerDevice> {
 public:
  explicit CudaLayerDevice(const CudaGpuOptions& options) : CudaGpu(options) {}

  void multiply(const Product& p) override {
    gemm("a layer", p.b_transposed ? cublas::kTransposed : cublas::kNotTransposed,
         p.a_transposed ? cublas::kTransposed : cublas::kNotTransposed, p.n, p.m, p.k, p.b, p.b_transposed ? p.k : p.n, p.a,
         p.a_transposed ? p.m : p.k, p.add ? 1.0f : 0.0f, p.out, p.out_is_float ? cublas::kFloat32 : cublas::kBFloat16, p.n,
         p.alpha);
  }
  void run(const LayerWork& work) override {
    use();
    check_cuda(launch_layer(work, stream()), "Starting a kernel of a layer");
  }
};

}  // namespace

std::unique_ptr<LayerDevice> cuda_layer_device(const CudaGpuOptions& options) {
  return std::make_unique<CudaLayerDevice>(options);
}

}  // namespace archer
