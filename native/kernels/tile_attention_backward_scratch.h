// Where the intermediates of tile_attention_backward.h stand in the scratch of a call.
#pragma once
#include <initializer_list>

#include "kernels/tile_attention_backward.h"
#include "kernels/tile_head.h"

namespace archer::kernels {

constexpr int64_t kKeyTiles = kKeyBlock / kTile;

struct BackwardScratch {
  int64_t columns, row_tiles;               // D in whole blocks; blocks of 32 rows of a stretch
  float *dkeys, *dvalues;                   // [length in whole stretches, columns]
  uint16_t* keys_transposed;                // per block of keys [columns / 32][2][32 d][32 keys]
  uint16_t *keys, *values;                  // copies of ragged blocks [64, columns]
  uint16_t *query_rows, *dout_rows;         // [64 G, columns]
  uint16_t *query_pairs, *dout_pairs;       // of pack_pairs
  uint16_t *query_columns, *dout_columns;   // of pack_hidden
  uint16_t *weights, *dscores;              // [2][row_tiles][32 keys][32 rows]
  uint16_t* dscore_pairs;                   // [row_tiles][2][2][16 pairs of keys][16 rows][2]
  float* dquery;                            // [row_tiles][columns / 32][32 d][32 rows]
  float *logsumexp, *delta;                 // [64 G], the first in base 2
  int32_t* token;                           // [64 G], within the stretch
};

// Returns the floats it takes; without `base` it only counts.
inline int64_t lay_out(int64_t length, int64_t group, int64_t head_dim, float* base, BackwardScratch& s) {
  s.columns = tile_blocks(head_dim) * kTile;
  s.row_tiles = kKeyTiles * group;
  const int64_t positions = (length + kKeyBlock - 1) / kKeyBlock * kKeyBlock, rows = s.row_tiles * kTile;
  int64_t floats = 0;
  const auto take = [&](int64_t count) {
    float* at = base ? base + floats : nullptr;
    floats += (count + 15) / 16 * 16;
    return at;
  };
  const auto take_bits = [&](int64_t count) { return reinterpret_cast<uint16_t*>(take(count / 2)); };
  s.dkeys = take(positions * s.columns);
  s.dvalues = take(positions * s.columns);
  s.keys_transposed = take_bits(positions * s.columns);
  for (uint16_t** lines : {&s.keys, &s.values}) *lines = take_bits(kKeyBlock * s.columns);
  for (uint16_t** states : {&s.query_rows, &s.dout_rows, &s.query_pairs, &s.dout_pairs, &s.query_columns, &s.dout_columns}) {
    *states = take_bits(rows * s.columns);
  }
  for (uint16_t** scores : {&s.weights, &s.dscores, &s.dscore_pairs}) *scores = take_bits(kKeyBlock * rows);
  s.dquery = take(rows * s.columns);
  for (float** numbers : {&s.logsumexp, &s.delta}) *numbers = take(rows);
  s.token = reinterpret_cast<int32_t*>(take(rows));
  return floats;
}

}  // namespace archer::kernels
