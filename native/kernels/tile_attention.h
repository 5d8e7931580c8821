// Causal attention in bfloat16 tiles, one kernel for decoding, prefill and training:
//   out_t = sum_j p_tj v_j,  p_tj = exp(scale q_t . k_j - logsumexp_t),  j = 0 .. t
// for the G query heads that share one key/value head. A query's result depends, to the last bit, on its own q and on the keys and
// values 0 .. t alone, wherever it is computed: keys are taken in blocks of 64 from position 0 on, a block holds either nothing
// that a query may see (then it is not visited) or the query's own position or an earlier one, and what lies behind the
// position weighs exactly 0. (An infinite or NaN value behind it is the exception: 0 times that is NaN.)
// Sums are float32; the weights p are rounded to bfloat16 for their product with v, as in every flash attention.
// Legend: D head_dim, G query heads per key/value head. Neither torch nor Node; one thread.
#pragma once
#include <cstdint>

#include "kernels/kv_page.h"

namespace archer::kernels {

constexpr int64_t kKeyBlock = kKvPage;  // keys and values of a step
constexpr int64_t kQueryTile = 16;  // queries of a tile: (token, head) pairs, the heads of a token one after the other

struct TileAttention {
  const uint16_t* query;                             // [tokens, G, D] from position `begin` on
  const uint16_t *keys, *values;                     // [positions, D] from position 0 on, or from `prefix` on
  uint16_t* out;                                     // as query
  float* logsumexp;                                  // [tokens, G], natural; or null
  int64_t query_stride, key_stride, lse_stride;      // elements from one token to the next: of query and out, of keys and
                                                     // values, of logsumexp
  int64_t group, head_dim;
  int64_t begin, end;                                // positions of the queries, all within one block of kKeyBlock
  float scale;
  // Where keys and values lie in pages: block i of positions begins at element pages[i] * page_stride of each. Null: in one piece.
  const int32_t* pages = nullptr;
  int64_t page_stride = 0;
  // A sequence that continues another one: the keys and values of its first `prefix` positions stand there. Not with pages.
  int64_t prefix = 0;
  const uint16_t *prefix_keys = nullptr, *prefix_values = nullptr;
  int64_t following = 0;  // element of keys and values at which the caller's next job begins: fetched while this one ends
};

// What is kept of a tile of queries while blocks of keys pass by; columns = D rounded up to whole blocks of 32.
inline int64_t tile_state_floats(int64_t columns) { return kQueryTile * (columns / 2 + columns + kQueryTile + 1); }

// Floats of scratch for a call with `tokens` queries per head, aligned to 64 bytes.
int64_t tile_attention_scratch(int64_t tokens, int64_t group, int64_t head_dim);

}  // namespace archer::kernels
