#include "kernels/row_linear.h"

#include "kernels/cpu_isa.h"

// Wide vectors are passed between inlined functions only, whatever the instruction set: no ABI is at stake.
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__x86_64__)
#define ARCHER_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma")))
#define ARCHER_AVX2 __attribute__((target("avx2,fma")))
#else
#define ARCHER_AVX512
#define ARCHER_AVX2
#endif

namespace archer::kernels {
namespace {

template <typename A, int kBytes>
struct Vector {
  typedef A type __attribute__((vector_size(kBytes)));
  static constexpr int64_t lanes = kBytes / static_cast<int64_t>(sizeof(A));
};

template <int kBytes, typename A>
ARCHER_INLINE typename Vector<A, kBytes>::type load(const A* values) {
  typename Vector<A, kBytes>::type lanes;
  std::memcpy(&lanes, values, sizeof lanes);
  return lanes;
}
template <int kBytes>
ARCHER_INLINE typename Vector<float, kBytes>::type load(const uint16_t* bits) {
  typename Vector<uint16_t, kBytes / 2>::type half;
  std::memcpy(&half, bits, sizeof half);
  using Words = typename Vector<uint32_t, kBytes>::type;
  return reinterpret_cast<typename Vector<float, kBytes>::type>(__builtin_convertvector(half, Words) << 16);
}

// Halves onto each other until one lane is left.
template <typename A, int kBytes>
ARCHER_INLINE A sum(const typename Vector<A, kBytes>::type& lanes) {
  A values[Vector<A, kBytes>::lanes];
  std::memcpy(values, &lanes, sizeof lanes);
  if constexpr (kBytes > 16) {
    using Half = typename Vector<A, kBytes / 2>::type;
    Half low, high;
    std::memcpy(&low, values, sizeof low);
    std::memcpy(&high, values + Vector<A, kBytes>::lanes / 2, sizeof high);
    return sum<A, kBytes / 2>(low + high);
  } else if constexpr (sizeof(A) == 8) {
    return values[0] + values[1];
  } else {
    return (values[0] + values[2]) + (values[1] + values[3]);
  }
}

// kRows x kOutputs dot products at once, each in vectors of its own.
template <typename T, int kBytes, int kRows, int kOutputs>
ARCHER_INLINE void products(const RowLinear<T>& job, int64_t row, int64_t n) {
  using A = Accumulator<T>;
  using V = typename Vector<A, kBytes>::type;
  constexpr int64_t kLanes = Vector<A, kBytes>::lanes;
  const int64_t K = job.inputs;
  const A* x = job.x_RK + row * K;
  const T* weight = job.weight_NK + n * K;
  V totals[kRows][kOutputs] = {};
  int64_t k = 0;
  for (; k + kLanes <= K; k += kLanes) {
    V w[kOutputs];
#pragma GCC unroll 8
    for (int j = 0; j < kOutputs; ++j) w[j] = load<kBytes>(weight + j * K + k);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const V own = load<kBytes>(x + i * K + k);
#pragma GCC unroll 8
      for (int j = 0; j < kOutputs; ++j) totals[i][j] += own * w[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < kOutputs; ++j) {
      A total = sum<A, kBytes>(totals[i][j]);
      for (int64_t rest = k; rest < K; ++rest) total += x[i * K + rest] * widen(weight[j * K + rest]);
      job.out_RN[(row + i) * job.outputs + n + j] = job.bias_N ? total + widen(job.bias_N[n + j]) : total;
    }
  }
}

template <typename T, int kBytes, int kRows, int kOutputs>
ARCHER_INLINE void rows_from(const RowLinear<T>& job, int64_t row, int64_t n) {
  for (; row + kRows <= job.rows; row += kRows) products<T, kBytes, kRows, kOutputs>(job, row, n);
  if constexpr (kRows > 1) rows_from<T, kBytes, kRows / 2, kOutputs>(job, row, n);
}

// As many sums as the registers hold: 4 rows x kOutputs.
template <typename T, int kBytes, int kOutputs>
ARCHER_INLINE void all_rows(const RowLinear<T>& job) {
  int64_t n = job.begin;
  for (; n + kOutputs <= job.end; n += kOutputs) rows_from<T, kBytes, 4, kOutputs>(job, 0, n);
  for (; n < job.end; ++n) rows_from<T, kBytes, 4, 1>(job, 0, n);
}

template <typename T>
ARCHER_AVX512 void by_avx512(const RowLinear<T>& job) {
  all_rows<T, 64, 6>(job);
}
template <typename T>
ARCHER_AVX2 void by_avx2(const RowLinear<T>& job) {
  all_rows<T, 32, 3>(job);
}
template <typename T>
void plain(const RowLinear<T>& job) {
  all_rows<T, 16, 3>(job);
}

}  // namespace

template <typename T>
void row_linear(const RowLinear<T>& job) {
  const CpuIsa isa = cpu_isa();
  if (isa >= CpuIsa::avx512) return by_avx512(job);
  if (isa >= CpuIsa::avx2) return by_avx2(job);
  plain(job);
}

template void row_linear<float>(const RowLinear<float>&);
template void row_linear<double>(const RowLinear<double>&);
template void row_linear<uint16_t>(const RowLinear<uint16_t>&);

}  // namespace archer::kernels
