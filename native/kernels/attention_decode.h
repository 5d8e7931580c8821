// Attention of one new token over a slot's cached keys and values: out_g = sum_j softmax_j(scale * q_g . k_j) v_j
// for the G query heads that share one key/value head. One thread; a row's result depends on nothing but its own slot,
// the order of every sum is fixed. Instantiated for float, double and uint16_t (the bits of a bfloat16).
//   q, out [G, D]; keys, values [length, D]; scratch at least attention_decode_scratch(G, D) values
#pragma once
#include <cstdint>

#include "kernels/decoder_math.h"

namespace archer::kernels {

// Positions handled together: their keys and values stay in the first-level cache.
inline constexpr int64_t kAttentionBlock = 64;

inline int64_t attention_decode_scratch(int64_t num_queries, int64_t head_dim) {
  return num_queries * (2 * head_dim + kAttentionBlock + 2);
}

template <typename T>
void attention_decode(const T* q, const T* keys, const T* values, T* out, Accumulator<T>* scratch, int64_t num_queries,
                      int64_t length, int64_t head_dim, double scale);

}  // namespace archer::kernels
