// Sequences laid end to end, without padding. Legend used in all rooms:
//   T tokens of all sequences, N sequences, H hidden size, V vocabulary; suffixes name shapes (ids_T, hidden_TH).
#pragma once
#include <cstdint>
#include <vector>

namespace archer {

// offsets[0] = 0 < ... < offsets[N] = T; sequence i holds tokens offsets[i] .. offsets[i+1]-1, at positions 0, 1, ...
// A sequence with a parent continues it: it sees the parent's tokens, and its own positions begin behind them. So responses share
// the prompt that they answer. Parents have no parent; what continues them stands behind them, together and in the parents' order.
struct PackedSequences {
  std::vector<int32_t> ids;           // [T]
  std::vector<int32_t> offsets;       // [N+1]
  std::vector<int32_t> parents = {};  // [N], -1 for none; empty: nobody has one

  int64_t num_tokens() const { return static_cast<int64_t>(ids.size()); }
  int64_t num_sequences() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t length(int64_t i) const { return offsets[i + 1] - offsets[i]; }
  int64_t parent(int64_t i) const { return parents.empty() ? -1 : parents[i]; }
  int64_t first_position(int64_t i) const { return parent(i) < 0 ? 0 : length(parent(i)); }
};

}  // namespace archer
