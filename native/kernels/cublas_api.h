// The four calls of cuBLAS that the head needs, loaded at run time: a build needs neither its headers nor the library.
// Signatures and values as NVIDIA's cuBLAS documentation gives them (cublasGemmEx, "cuBLAS datatypes reference") and
// library_types.h of the CUDA toolkit.
#pragma once
#include <dlfcn.h>

#include <string>

namespace archer::cublas {

using Handle = void*;
using Stream = void*;

constexpr int kSuccess = 0;                      // CUBLAS_STATUS_SUCCESS
constexpr int kNotTransposed = 0, kTransposed = 1;  // CUBLAS_OP_N, CUBLAS_OP_T
constexpr int kCompute32F = 68;                  // CUBLAS_COMPUTE_32F
constexpr int kDefaultAlgorithm = -1;            // CUBLAS_GEMM_DEFAULT
constexpr int kFloat32 = 0, kBFloat16 = 14;      // CUDA_R_32F, CUDA_R_16BF

struct Api {
  int (*create)(Handle*) = nullptr;
  int (*destroy)(Handle) = nullptr;
  int (*set_stream)(Handle, Stream) = nullptr;
  int (*set_workspace)(Handle, void*, size_t) = nullptr;
  // C = alpha op(A) op(B) + beta C, column-major: op(A) is [m, k], op(B) [k, n], C [m, n]
  int (*gemm)(Handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, int type_a, int lda,
              const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc, int compute_type,
              int algorithm) = nullptr;

  explicit operator bool() const { return gemm != nullptr; }
};

// The library at `path`, or the one that the process has or finds by name. Without success an empty Api, and `reason`.
inline Api load(const std::string& path, std::string& reason) {
  const char* names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
  void* library = nullptr;
  if (!path.empty()) {
    library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) reason = dlerror();
  } else {
    for (const char* name : names) {
      library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library != nullptr) break;
    }
    if (library == nullptr) reason = "cuBLAS (libcublas.so.13 or .12) was not found by the loader";
  }
  if (library == nullptr) return {};
  Api api;
  const auto find = [&](auto& function, const char* name) {
    *reinterpret_cast<void**>(&function) = dlsym(library, name);
    if (function == nullptr) reason = std::string("cuBLAS lacks ") + name;
    return function != nullptr;
  };
  if (find(api.create, "cublasCreate_v2") && find(api.destroy, "cublasDestroy_v2") &&
      find(api.set_stream, "cublasSetStream_v2") && find(api.set_workspace, "cublasSetWorkspace_v2") &&
      find(api.gemm, "cublasGemmEx"))
    return api;
  return {};
}

}  // namespace archer::cublas
