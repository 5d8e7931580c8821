// See cuda_decode_device.h.
#include "kernels/cuda_decode_device.h"

#include <map>

#include "kernels/cuda_gpu.h"
#include "kernels/decode_launch.h"

namespace archer {
namespace {

class CudaDecodeDevice : public CudaGpu<DecodeDevice> {
 public:
  explicit CudaDecodeDevice(const CudaGpuOptions& options) : CudaGpu(options) {}
  ~CudaDecodeDevice() override {
    for (const auto& [captured, graph] : graphs_) cudaGraphExecDestroy(graph);
  }

  void linear(const uint16_t* x_BI, const uint16_t* weight_NI, void* out, bool out_is_float, int64_t stride,
              int64_t num_rows, int64_t num_inputs, int64_t num_outputs) override {
    gemm("a layer", cublas::kTransposed, cublas::kNotTransposed, num_outputs, num_rows, num_inputs, weight_NI,
         num_inputs, x_BI, num_inputs, 0.0f, out, out_is_float ? cublas::kFloat32 : cublas::kBFloat16, stride);
  }
  void norm_rows(const NormRowsParams& params) override { start(launch_norm_rows, params, "norms rows"); }
  void append_keys(const AppendParams& params) override { start(launch_append_keys, params, "appends keys"); }
  void attend(const AttentionParams& params) override { start(launch_attention, params, "attends"); }
  void attend_prompts(const PrefillParams& params) override {
    start(launch_prefill_attention, params, "attends over prompts");
  }
  void swiglu(const SwigluParams& params) override { start(launch_swiglu, params, "computes SwiGLU"); }
  void sample(const SampleParams& params) override { start(launch_sample, params, "samples"); }

  int capture(const std::function<void()>& work) override {
    use();
    // Relaxed: a kernel that is captured before it has ever run may have to be loaded first.
    check_cuda(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeRelaxed), "Beginning to capture a CUDA graph");
    cudaGraph_t graph = nullptr;
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream(), &graph);
      if (graph != nullptr) cudaGraphDestroy(graph);
      throw;
    }
    check_cuda(cudaStreamEndCapture(stream(), &graph), "Capturing a CUDA graph");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t error = cudaGraphInstantiateWithFlags(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check_cuda(error, "Instantiating a CUDA graph");
    graphs_[num_captured_] = executable;
    return num_captured_++;
  }
  void replay(int captured) override {
    use();
    check_cuda(cudaGraphLaunch(graphs_.at(captured), stream()), "Starting a CUDA graph");
  }
  void forget(int captured) noexcept override {
    cudaGraphExecDestroy(graphs_[captured]);
    graphs_.erase(captured);
  }

 private:
  template <typename Params>
  void start(cudaError_t (*launch)(const Params&, cudaStream_t), const Params& params, const char* what) {
    use();
    const cudaError_t error = launch(params, stream());
    if (error == cudaSuccess) return;
    const std::string text = std::string("Starting the kernel that ") + what;
    check_cuda(error, text.c_str());
  }

  std::map<int, cudaGraphExec_t> graphs_;
  int num_captured_ = 0;
};

}  // namespace

std::unique_ptr<DecodeDevice> cuda_decode_device(const CudaGpuOptions& options) {
  return std::make_unique<CudaDecodeDevice>(options);
}

}  // namespace archer
