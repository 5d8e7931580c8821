// The part of a CUDA device that all interfaces over gpu_device.h share: runtime API, and cuBLAS, which is loaded
// when a device is made, so that building needs neither its headers nor the library. Needs compute capability 8.0 or
// newer.
#pragma once
#include <cuda_runtime.h>

#include <cstring>
#include <string>

#include "kernels/cublas_api.h"
#include "kernels/cuda_options.h"
#include "kernels/gpu_device.h"

namespace archer {

constexpr size_t kStagingBytes = size_t{8} << 20;

inline void check_cuda(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // so that the next call does not report this one
  throw DeviceError(error == cudaErrorMemoryAllocation ? DeviceError::Kind::out_of_memory : DeviceError::Kind::failed,
                    std::string(what) + ": " + cudaGetErrorString(error) + " (" + cudaGetErrorName(error) + ").");
}

inline DeviceError unavailable(const std::string& reason) { return {DeviceError::Kind::unavailable, reason}; }

// Interface: a descendant of GpuDevice.
template <typename Interface>
class CudaGpu : public Interface {
 public:
  explicit CudaGpu(const CudaGpuOptions& options) : options_(options) {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess) {
      cudaGetLastError();
      throw unavailable(std::string("no CUDA device: ") + cudaGetErrorString(error));
    }
    if (options.device < 0 || options.device >= count) {
      throw unavailable("no CUDA device " + std::to_string(options.device) + ": there are " + std::to_string(count));
    }
    const int major = attribute(cudaDevAttrComputeCapabilityMajor);
    if (major < 8) {
      throw unavailable("CUDA device " + std::to_string(options.device) + " has compute capability " +
                        std::to_string(major) + ".x; the kernels need 8.0 or newer");
    }
    std::string reason;
    cublas_ = cublas::load(options.cublas_path, reason);
    if (!cublas_) throw unavailable("no cuBLAS: " + reason);

    use();
    try {
      stream_ = static_cast<cudaStream_t>(options.stream);
      if (stream_ == nullptr) {
        check_cuda(cudaStreamCreateWithFlags(&own_stream_, cudaStreamNonBlocking), "Making a CUDA stream");
        stream_ = own_stream_;
      }
      check_cuda(cudaEventCreateWithFlags(&mark_, cudaEventDisableTiming), "Making a CUDA event");
      check_cublas(cublas_.create(&handle_), "cublasCreate");
      check_cublas(cublas_.set_stream(handle_, stream_), "cublasSetStream");
      if (options.cublas_workspace_bytes > 0) {
        // One that is ours and stays: products are then reproducible, and nothing is allocated in between.
        workspace_ = CudaGpu::allocate(options.cublas_workspace_bytes);
        check_cublas(cublas_.set_workspace(handle_, workspace_, options.cublas_workspace_bytes), "cublasSetWorkspace");
      }
    } catch (...) {
      close();
      throw;
    }
  }

  ~CudaGpu() override { close(); }

  size_t free_bytes() override {
    use();
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "Asking for the GPU's free memory");
    return free;
  }
  void* allocate(size_t bytes) override {
    use();
    void* memory = nullptr;
    const std::string what = "Allocating " + std::to_string(bytes) + " bytes on the GPU";
    check_cuda(cudaMalloc(&memory, bytes > 0 ? bytes : 1), what.c_str());
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
    check_cuda(cudaMemcpyAsync(to, from_host, bytes, cudaMemcpyHostToDevice, stream_), "Copying to the GPU");
  }
  void download(void* to_host, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    use();
    check_cuda(cudaMemcpyAsync(to_host, from, bytes, cudaMemcpyDeviceToHost, stream_), "Copying from the GPU");
  }
  void copy(void* to, const void* from, size_t bytes) override {
    if (bytes == 0) return;
    use();
    check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_), "Copying on the GPU");
  }
  void zero(void* memory, size_t bytes) override {
    if (bytes == 0) return;
    use();
    check_cuda(cudaMemsetAsync(memory, 0, bytes, stream_), "Clearing memory of the GPU");
  }
  void synchronize() override {
    use();
    check_cuda(cudaStreamSynchronize(stream_), "Waiting for the GPU");
    staged_ = 0;
  }
  void* allocate_host(size_t bytes) override {
    use();
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, bytes > 0 ? bytes : 1), "Allocating pinned memory");
    return memory;
  }
  void release_host(void* memory) noexcept override {
    if (memory != nullptr) cudaFreeHost(memory);
  }
  void mark() override {
    use();
    check_cuda(cudaEventRecord(mark_, stream_), "Recording a CUDA event");
  }
  void wait_for_mark() override {
    use();
    check_cuda(cudaEventSynchronize(mark_), "Waiting for the GPU");
  }

 protected:
  void use() { check_cuda(cudaSetDevice(options_.device), "Choosing the GPU"); }
  cudaStream_t stream() const { return stream_; }
  int attribute(cudaDeviceAttr name) const {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, name, options_.device), "Asking the GPU for its properties");
    return value;
  }

  // Row-major [rows, columns] is column-major [columns, rows]: every product is the transposed one with its factors
  // swapped.
  void gemm(const char* what, int op_a, int op_b, int64_t m, int64_t n, int64_t k, const void* a, int64_t lda,
            const void* b, int64_t ldb, float beta, void* c, int type_c, int64_t ldc, float alpha = 1.0f) {
    if (m == 0 || n == 0 || k == 0) return;
    use();
    const std::string text = std::string("The product for ") + what;
    check_cublas(cublas_.gemm(handle_, op_a, op_b, static_cast<int>(m), static_cast<int>(n), static_cast<int>(k),
                              &alpha, a, cublas::kBFloat16, static_cast<int>(lda), b, cublas::kBFloat16,
                              static_cast<int>(ldb), &beta, c, type_c, static_cast<int>(ldc), cublas::kCompute32F,
                              cublas::kDefaultAlgorithm),
                 text.c_str());
  }

 private:
  void check_cublas(int status, const char* what) {
    if (status == cublas::kSuccess) return;
    // CUBLAS_STATUS_ALLOC_FAILED is 3.
    throw DeviceError(status == 3 ? DeviceError::Kind::out_of_memory : DeviceError::Kind::failed,
                      std::string(what) + " failed with cuBLAS status " + std::to_string(status) + ".");
  }

  void close() noexcept {
    if (handle_ != nullptr) cublas_.destroy(handle_);
    release(workspace_);
    release_host(staging_);
    if (mark_ != nullptr) cudaEventDestroy(mark_);
    if (own_stream_ != nullptr) cudaStreamDestroy(own_stream_);
  }

  CudaGpuOptions options_;
  cublas::Api cublas_;
  cublas::Handle handle_ = nullptr;
  void* workspace_ = nullptr;
  char* staging_ = nullptr;
  size_t staged_ = 0;  // bytes of it that copies in flight may still read
  cudaStream_t stream_ = nullptr, own_stream_ = nullptr;
  cudaEvent_t mark_ = nullptr;
};

}  // namespace archer
