// See cuda_head_device.h.
#include "kernels/cuda_head_device.h"

#include <cuda_runtime.h>

#include <cstring>

#include "kernels/cublas_api.h"
#include "kernels/head_rows_launch.h"

namespace archer {
namespace {

using Kind = DeviceError::Kind;

constexpr size_t kStagingBytes = size_t{8} << 20;

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report this one
  throw DeviceError(error == cudaErrorMemoryAllocation ? Kind::out_of_memory : Kind::failed,
                    std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ").");
}

int attribute(cudaDeviceAttr name, int device) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, name, device), "Asking the GPU for its properties");
  return value;
}

class CudaHeadDevice : public HeadDevice {
 public:
  explicit CudaHeadDevice(const CudaHeadOptions& options) : options_(options) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
      cudaGetLastError();
      throw DeviceError(Kind::unavailable, std::string("no CUDA device: ") + cudaGetErrorString(error));
    }
    if (options.device < 0 || options.device >= count) {
      throw DeviceError(Kind::unavailable, "no CUDA device " + std::to_string(options.device) + ": there are " +
                        std::to_string(count));
    }
    const int major = attribute(cudaDevAttrComputeCapabilityMajor, options.device);
    if (major < 8) {
      throw DeviceError(Kind::unavailable, "CUDA device " + std::to_string(options.device) +
                        " has compute capability " + std::to_string(major) + ".x; the kernels need 8.0 or newer");
    }
    std::string reason;
    cublas_ = cublas::load(options.cublas_path, reason);
    if (!cublas_) throw DeviceError(Kind::unavailable, "no cuBLAS: " + reason);

    use();
    num_processors_ = attribute(cudaDevAttrMultiProcessorCount, options.device);
    shared_bytes_ = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, options.device));
    max_cluster_ = major >= 9 && attribute(cudaDevAttrClusterLaunch, options.device) != 0 ? kMaxCluster : 1;
    try {
      stream_ = static_cast<cudaStream_t>(options.stream);
      if (stream_ == nullptr) {
        check(cudaStreamCreateWithFlags(&own_stream_, cudaStreamNonBlocking), "Making a CUDA stream");
        stream_ = own_stream_;
      }
      check(cudaEventCreateWithFlags(&mark_, cudaEventDisableTiming), "Making a CUDA event");
      check_cublas(cublas_.create(&handle_), "cublasCreate");
      check_cublas(cublas_.set_stream(handle_, stream_), "cublasSetStream");
      if (options.cublas_workspace_bytes > 0) {
        // One that is ours and stays: products are then reproducible, and nothing is allocated in between.
        workspace_ = CudaHeadDevice::allocate(options.cublas_workspace_bytes);
        check_cublas(cublas_.set_workspace(handle_, workspace_, options.cublas_workspace_bytes), "cublasSetWorkspace");
      }
    } catch (...) {
      close();
      throw;
    }
  }

  ~CudaHeadDevice() override { close(); }

  size_t free_bytes() override {
    use();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "Asking for the GPU's free memory");
    return free;
  }
  void* allocate(size_t bytes) override {
    use();
    void* memory = nullptr;
    const std::string what = "Allocating " + std::to_string(bytes) + " bytes on the GPU";
    check(cudaMalloc(&memory, bytes > 0 ? bytes : 1), what.c_str());
    return memory;
  }
  void release(void* memory) noexcept override {
    if (memory != nullptr) cudaFree(memory);  // waits for the work that uses it
  }
  void upload(void* to, const void* from_host, size_t bytes) override {
    if (bytes == 0) return;
    use();
    // Through pinned memory: for a pageable source the driver may wait for the stream first.
    if (bytes <= kStagingBytes) {
      if (staging_ == nullptr) staging_ = static_cast<char*>(allocate_host(kStagingBytes));
      if (staged_ + bytes > kStagingBytes) synchronize();
      std::memcpy(staging_ + staged_, from_host, bytes);
      from_host = staging_ + staged_;
      staged_ += (bytes + 63) / 64 * 64;
    }
    // A larger one goes straight from where it is: the driver has taken its copy when the call returns.
    check(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_), "Copying to the GPU");
  }
  void download(void* to_host, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    use();
    check(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_), "Copying from the GPU");
  }
  void zero(void* memory, size_t bytes) override {
    if (bytes == 0) return;
    use();
    check(cudaMemsetAsync(memory, 0, bytes, stream_), "Clearing memory of the GPU");
  }
  void synchronize() override {
    use();
    check(cudaStreamSynchronize(stream_), "Waiting for the GPU");
    staged_ = 0;
  }
  void* allocate_host(size_t bytes) override {
    use();
    void* memory = nullptr;
    check(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "Allocating pinned memory");
    return memory;
  }
  void release_host(void* memory) noexcept override {
    if (memory != nullptr) cudaFreeHost(memory);
  }
  void mark() override {
    use();
    check(cudaEventRecord(mark_, stream_), "Recording a CUDA event");
  }
  void wait_for_mark() override {
    use();
    check(cudaEventSynchronize(mark_), "Waiting for the GPU");
  }

  // Row-major [rows, columns] is column-major [columns, rows]: every product is the transposed one with its factors
  // swapped.
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
    const bool planned = options_.cluster < 0 || mode != HeadRowsMode::fused;
    HeadRowsPlan plan = plan_head_rows(mode, params.vocabulary, params.logits_type, shared_bytes_, max_cluster_);
    if (!planned) {
      plan = {options_.cluster, options_.cluster > 0
                                    ? resident_bytes(params.vocabulary, options_.cluster, params.logits_type)
                                    : kSharedHeaderBytes};
    }
    cudaError_t error = launch_head_rows(mode, params, plan, num_processors_, stream_);
    if (planned && plan.cluster > 0 && error != cudaSuccess) {  // a partitioned GPU may have no room for the cluster
      cudaGetLastError();
      error = launch_head_rows(mode, params, {0, kSharedHeaderBytes}, num_processors_, stream_);
    }
    check(error, "Starting the head's row kernel");
  }
  void copy_rows(const CopyRowsParams& params) override {
    use();
    check(launch_copy_rows(params, stream_), "Starting the kernel that copies rows");
  }

 private:
  void use() { check(cudaSetDevice(options_.device), "Choosing the GPU"); }

  void check_cublas(int status, const char* what) {
    if (status == cublas::kSuccess) return;
    // CUBLAS_STATUS_ALLOC_FAILED is 3.
    throw DeviceError(status == 3 ? Kind::out_of_memory : Kind::failed,
                      std::string(what) + " failed with cuBLAS status " + std::to_string(status) + ".");
  }

  void gemm(const char* what, int op_a, int op_b, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
            const void* b, int64_t ldb, float beta, void* c, int type_c, int64_t ldc) {
    if (m == 0 || n == 0 || k == 0) return;
    use();
    const float alpha = 1.0f;
    const std::string text = std::string("The product for ") + what;
    check_cublas(cublas_.gemm(handle_, op_a, op_b, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k),
                              &alpha, a, cublas::kBFloat16, static_cast<int>(lda), b, cublas::kBFloat16,
                              static_cast<int>(ldb), &beta, c, type_c, static_cast<int>(ldc), cublas::kCompute32F,
                              cublas::kDefaultAlgorithm),
                 text.c_str());
  }

  void close() noexcept {
    if (handle_ != nullptr) cublas_.destroy(handle_);
    release(workspace_);
    release_host(staging_);
    if (mark_ != nullptr) cudaEventDestroy(mark_);
    if (own_stream_ != nullptr) cudaStreamDestroy(own_stream_);
  }

  CudaHeadOptions options_;
  cublas::Api cublas_;
  cublas::Handle handle_ = nullptr;
  void* workspace_ = nullptr;
  char* staging_ = nullptr;
  size_t staged_ = 0;  // bytes of it that copies in flight may still read
  cudaStream_t stream_ = nullptr, own_stream_ = nullptr;
  cudaEvent_t mark_ = nullptr;
  int num_processors_ = 0, max_cluster_ = 1;
  size_t shared_bytes_ = 0;
};

}  // namespace

std::unique_ptr<HeadDevice> cuda_head_device(const CudaHeadOptions& options) {
  return std::make_unique<CudaHeadDevice>(options);
}

}  // namespace archer
