// What the kernels' headers ask of a GPU, in CUDA C++ and PTX (sm_80; clusters from sm_90 on). tests/gpu_emulation.h
// defines the same names for the CPU.
#pragma once
#include <cooperative_groups.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#define ARCHER_DEVICE __device__ __forceinline__
#define ARCHER_UNROLL _Pragma("unroll")

namespace archer::gpu {

struct alignas(16) Float4 { float x, y, z, w; };
struct alignas(16) Word4 { uint32_t x, y, z, w; };
struct alignas(8) Word2 { uint32_t x, y; };
struct Bf16 { uint16_t bits; };

ARCHER_DEVICE int thread_rank() { return static_cast<int>(threadIdx.x); }
ARCHER_DEVICE int block_rank() { return static_cast<int>(blockIdx.x); }
ARCHER_DEVICE int num_blocks() { return static_cast<int>(gridDim.x); }
ARCHER_DEVICE char* shared_memory() {
  extern __shared__ __align__(128) char bytes[];
  return bytes;
}

ARCHER_DEVICE void block_barrier() { __syncthreads(); }
template <typename T>
ARCHER_DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, mask); }
ARCHER_DEVICE float shuffle_from_0(float value) { return __shfl_sync(0xFFFFFFFFu, value, 0); }

// All threads of all blocks of the cluster; writes before it, to any of their shared memories, are seen after it.
template <int kCluster>
ARCHER_DEVICE void cluster_barrier() {
  if constexpr (kCluster == 1) {
    __syncthreads();
  } else {
#if __CUDA_ARCH__ >= 900
    cooperative_groups::this_cluster().sync();
#endif
  }
}

// The same place in the shared memory of block `rank` of the cluster.
template <int kCluster, typename T>
ARCHER_DEVICE T* peer_shared(T* own, int rank) {
  if constexpr (kCluster == 1) {
    return own;
  } else {
#if __CUDA_ARCH__ >= 900
    return cooperative_groups::this_cluster().map_shared_rank(own, static_cast<unsigned>(rank));
#else
    return own;
#endif
  }
}

// Copies from global to shared memory that go on while the thread works; wait<n> waits for all but its n last commits.
ARCHER_DEVICE void copy_async_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global))
               : "memory");
}
ARCHER_DEVICE void copy_async_element(float* shared, const float* global) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(shared))), "l"(__cvta_generic_to_global(global))
               : "memory");
}
// cp.async cannot copy 2 bytes.
ARCHER_DEVICE void copy_async_element(Bf16* shared, const Bf16* global) { *shared = *global; }
ARCHER_DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
ARCHER_DEVICE void copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

ARCHER_DEVICE Word4 load_16(const void* global) {
  const uint4 words = *static_cast<const uint4*>(global);
  return {words.x, words.y, words.z, words.w};
}
ARCHER_DEVICE void store_8(void* global, const Word2& words) {
  *static_cast<uint2*>(global) = make_uint2(words.x, words.y);
}
ARCHER_DEVICE void store_16(void* global, const Word4& words) {
  *static_cast<uint4*>(global) = make_uint4(words.x, words.y, words.z, words.w);
}

ARCHER_DEVICE uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t word;
  memcpy(&word, &pair, sizeof word);
  return word;
}
ARCHER_DEVICE Bf16 to_bf16(float value) { return {__bfloat16_as_ushort(__float2bfloat16_rn(value))}; }

// A warp's sum_8x8 += a_8x16 b_16x8, a and b in bfloat16: the tensor core's m16n8k16 with rows 8 to 15 left empty. With
// g = lane / 4 and q = lane % 4 a lane holds a[g][2q, 2q + 1] and a[g][2q + 8, 2q + 9], b[2q, 2q + 1][g] and
// b[2q + 8, 2q + 9][g], the first of each pair in the low half of its word, and sum[g][2q, 2q + 1].
ARCHER_DEVICE void multiply_8x8x16(float (&sum)[2], uint32_t a_near, uint32_t a_far, uint32_t b_near, uint32_t b_far) {
  asm volatile(
      "{.reg .f32 unused<2>; mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, unused0, unused1}, "
      "{%2, %6, %3, %6}, {%4, %5}, {%0, %1, %7, %7};}"
      : "+f"(sum[0]), "+f"(sum[1])
      : "r"(a_near), "r"(a_far), "r"(b_near), "r"(b_far), "r"(0), "f"(0.0f));
}

// A warp's sum_16x8 += a_16x16 b_16x8: rows g and g + 8. A lane holds a[g][2q, +1], a[g + 8][2q, +1], a[g][2q + 8, +1] and
// a[g + 8][2q + 8, +1], b as above, and sum[g][2q, +1], sum[g + 8][2q, +1].
ARCHER_DEVICE void multiply_16x8x16(float (&sum)[4], const Word4& a, uint32_t b_near, uint32_t b_far) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a.x), "r"(a.y), "r"(a.z), "r"(a.w), "r"(b_near), "r"(b_far));
}

// Four 8 x 8 blocks of bfloat16 in shared memory, transposed: lane l names the 16 bytes of row l % 8 of block l / 8, and
// gets of each block the elements [2q, +1][g].
ARCHER_DEVICE Word4 load_transposed(const void* row) {
  Word4 words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
  return words;
}

}  // namespace archer::gpu
