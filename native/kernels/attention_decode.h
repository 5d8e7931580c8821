// Attention of one new token over a sequence's cached keys and values: out_g = sum_j softmax_j(scale * q_g . k_j) v_j
// for the G query heads that share one key/value head. One thread; a row's result depends on nothing but its own
// sequence, the order of every sum is fixed. Instantiated for float, double and uint16_t (the bits of a bfloat16).
//   query, out [G, D]; keys, values in pages [kKvPage, D] (kernels/kv_page.h)
#pragma once
#include <cstdint>

#include "kernels/decoder_math.h"
#include "kernels/kv_page.h"

namespace archer::kernels {

template <typename T>
struct DecodeAttention {
  const T* query;
  const T *keys, *values;  // line 0 of page 0, of this key/value head
  T* out;
  const int32_t* pages;    // of positions 0 .. length - 1
  int64_t page_stride;     // elements from one page to the next
  int64_t group, head_dim, length;
  double scale;
};

// Values of scratch for a call, uninitialised.
inline int64_t attention_decode_scratch(int64_t group, int64_t head_dim) {
  return group * (2 * head_dim + kKvPage + 2);
}

template <typename T>
void attention_decode(const DecodeAttention<T>& job, Accumulator<T>* scratch);

}  // namespace archer::kernels
