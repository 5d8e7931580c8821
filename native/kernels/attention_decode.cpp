#include "kernels/attention_decode.h"

#include <limits>

namespace archer::kernels {
namespace {

template <typename T>
ARCHER_INLINE void attention_decode_body(const T* q, const T* keys, const T* values, T* out, Accumulator<T>* scratch,
                                         int64_t num_queries, int64_t length, int64_t head_dim, double scale) {
  using A = Accumulator<T>;
  A* query = scratch;                               // [G, D] scaled, widened
  A* sums = query + num_queries * head_dim;         // [G, D]
  A* scores = sums + num_queries * head_dim;        // [G, length]
  for (int64_t i = 0; i < num_queries * head_dim; ++i) {
    query[i] = widen(q[i]) * static_cast<A>(scale);
    sums[i] = 0;
  }
  // A key is read from memory once and used by all G queries while it is in the first-level cache.
  for (int64_t j = 0; j < length; ++j) {
    const T* key = keys + j * head_dim;
    for (int64_t g = 0; g < num_queries; ++g) {
      const A* row = query + g * head_dim;
      A dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t d = 0; d < head_dim; ++d) dot += row[d] * widen(key[d]);
      scores[g * length + j] = dot;
    }
  }
  for (int64_t g = 0; g < num_queries; ++g) {
    A* row = scores + g * length;
    A largest = -std::numeric_limits<A>::infinity();
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < length; ++j) largest = row[j] > largest ? row[j] : largest;
    A total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < length; ++j) {
      row[j] = exponential(row[j] - largest);
      total += row[j];
    }
    const A inverse = A(1) / total;
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) row[j] *= inverse;
  }
  for (int64_t j = 0; j < length; ++j) {
    const T* value = values + j * head_dim;
    for (int64_t g = 0; g < num_queries; ++g) {
      const A weight = scores[g * length + j];
      A* row = sums + g * head_dim;
#pragma omp simd
      for (int64_t d = 0; d < head_dim; ++d) row[d] += weight * widen(value[d]);
    }
  }
  for (int64_t i = 0; i < num_queries * head_dim; ++i) out[i] = narrow<T>(sums[i]);
}

}  // namespace

#define ARCHER_STAMP(T)                                                                                               \
  template <>                                                                                                         \
  ARCHER_CLONES void attention_decode<T>(const T* q, const T* keys, const T* values, T* out, Accumulator<T>* scratch, \
                                         int64_t num_queries, int64_t length, int64_t head_dim, double scale) {       \
    attention_decode_body<T>(q, keys, values, out, scratch, num_queries, length, head_dim, scale);                    \
  }
ARCHER_STAMP(float)
ARCHER_STAMP(double)
ARCHER_STAMP(uint16_t)
#undef ARCHER_STAMP

}  // namespace archer::kernels
