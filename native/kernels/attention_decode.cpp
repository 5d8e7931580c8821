#include "kernels/attention_decode.h"

#include <limits>

// Wide vectors are passed between inlined functions only, whatever the instruction set: no ABI is at stake.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace archer::kernels {
namespace {

constexpr int64_t kBlock = kKvPage;  // its keys and values stay in the first-level cache
constexpr int64_t kLanes = 16;  // of a dot product; head_dim may have a remainder

template <typename A>
struct Lanes {
  typedef A type __attribute__((vector_size(kLanes * sizeof(A))));
};

template <typename A>
ARCHER_INLINE typename Lanes<A>::type load(const A* values) {
  typename Lanes<A>::type lanes;
  std::memcpy(&lanes, values, sizeof lanes);
  return lanes;
}
ARCHER_INLINE Lanes<float>::type load(const uint16_t* bits) {
  Lanes<uint16_t>::type narrow_lanes;
  std::memcpy(&narrow_lanes, bits, sizeof narrow_lanes);
  const Lanes<uint32_t>::type words = __builtin_convertvector(narrow_lanes, Lanes<uint32_t>::type) << 16;
  return reinterpret_cast<Lanes<float>::type>(words);
}

template <typename A>
ARCHER_INLINE A sum(const typename Lanes<A>::type& lanes) {
  typename Lanes<A>::type v = lanes;
  v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3);
  v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1);
  return v[0] + v[1];
}

template <typename T>
ARCHER_INLINE Accumulator<T> dot(const Accumulator<T>* a, const T* b, int64_t n) {
  using A = Accumulator<T>;
  typename Lanes<A>::type total = {};
  int64_t d = 0;
  for (; d + kLanes <= n; d += kLanes) total += load(a + d) * load(b + d);
  A result = sum<A>(total);
  for (; d < n; ++d) result += a[d] * widen(b[d]);
  return result;
}

ARCHER_INLINE void prefetch(const void* begin, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(begin) + i);
}

// Softmax over blocks: with a new largest score m' the sums so far shrink by e^(m - m').
// kHeadDim: a constant lets the compiler keep a whole row in vector registers; 0 takes any head_dim.
template <typename T, int64_t kHeadDim>
ARCHER_INLINE void attend(const DecodeAttention<T>& job, Accumulator<T>* scratch) {
  using A = Accumulator<T>;
  const int64_t head_dim = kHeadDim ? kHeadDim : job.head_dim, row_bytes = head_dim * sizeof(T);
  const int64_t num_queries = job.group, length = job.length;
  A* query = scratch;                           // [G, D] scaled, widened
  A* sums = query + num_queries * head_dim;     // [G, D]
  A* scores = sums + num_queries * head_dim;    // [G, kBlock]
  A* largest = scores + num_queries * kBlock;   // [G]
  A* total = largest + num_queries;             // [G]
  for (int64_t i = 0; i < num_queries * head_dim; ++i) {
    query[i] = widen(job.query[i]) * static_cast<A>(job.scale);
    sums[i] = 0;
  }
  for (int64_t g = 0; g < num_queries; ++g) {
    largest[g] = -std::numeric_limits<A>::infinity();
    total[g] = 0;
  }
  for (int64_t first = 0; first < length; first += kBlock) {
    const int64_t count = length - first < kBlock ? length - first : kBlock;
    const int32_t* page = job.pages + first / kBlock;
    const T *key = job.keys + *page * job.page_stride, *value = job.values + *page * job.page_stride;
    for (int64_t j = 0; j < count; ++j) {
      prefetch(value + j * head_dim, row_bytes);
      for (int64_t g = 0; g < num_queries; ++g) {
        scores[g * kBlock + j] = dot<T>(query + g * head_dim, key + j * head_dim, head_dim);
      }
    }
    if (first + kBlock < length) prefetch(job.keys + page[1] * job.page_stride, row_bytes * (kBlock / 4));
    for (int64_t g = 0; g < num_queries; ++g) {
      A* weight = scores + g * kBlock;
      A block_largest = largest[g];
      for (int64_t j = 0; j < count; ++j) block_largest = weight[j] > block_largest ? weight[j] : block_largest;
#pragma omp simd
      for (int64_t j = 0; j < count; ++j) weight[j] = exponential(weight[j] - block_largest);
      const A shrink = exponential(largest[g] - block_largest);
      A block_total = 0;
      for (int64_t j = 0; j < count; ++j) block_total += weight[j];
      largest[g] = block_largest;
      total[g] = total[g] * shrink + block_total;

      A* row = sums + g * head_dim;
      A fixed[kHeadDim ? kHeadDim : 1];
      A* partial = kHeadDim ? fixed : row;
#pragma omp simd
      for (int64_t d = 0; d < head_dim; ++d) partial[d] = row[d] * shrink;
      for (int64_t j = 0; j < count; ++j) {
        const T* value_j = value + j * head_dim;
#pragma omp simd
        for (int64_t d = 0; d < head_dim; ++d) partial[d] += weight[j] * widen(value_j[d]);
      }
      if (kHeadDim) std::memcpy(row, partial, head_dim * sizeof(A));
    }
  }
  for (int64_t g = 0; g < num_queries; ++g) {
    for (int64_t d = 0; d < head_dim; ++d) job.out[g * head_dim + d] = narrow<T>(sums[g * head_dim + d] / total[g]);
  }
}

}  // namespace

#define ARCHER_STAMP(T)                                                                             \
  template <>                                                                                       \
  ARCHER_CLONES void attention_decode<T>(const DecodeAttention<T>& job, Accumulator<T>* scratch) { \
    if (job.head_dim == 64) return attend<T, 64>(job, scratch);                                    \
    if (job.head_dim == 128) return attend<T, 128>(job, scratch);                                  \
    attend<T, 0>(job, scratch);                                                                    \
  }
ARCHER_STAMP(float)
ARCHER_STAMP(double)
ARCHER_STAMP(uint16_t)
#undef ARCHER_STAMP

}  // namespace archer::kernels
