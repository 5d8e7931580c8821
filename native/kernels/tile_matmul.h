// c = a b (+ c) in bfloat16 tiles with float32 sums, for linear layers of many rows and for their gradients: a as it lies or in
// blocks, b packed.
// Legend: M rows and N columns of c, K the inner dimension. Neither torch nor Node; the callers share out M and N among threads.
#pragma once
#include <cstdint>

#include "kernels/tile_linear.h"

namespace archer::kernels {

// Row-major bfloat16; stride: elements from one row to the next.
struct TileMatrix {
  const uint16_t* values;
  int64_t rows, columns, stride;
};

struct TileMatmul {
  const uint16_t* a;           // [M, K] row-major, or blocks of transpose()
  bool a_in_blocks;
  int64_t rows, inner;         // M and K of `a`
  const uint16_t* b;           // [N / 32][K / 32][2][16 pairs of k][16 n][2], of pack_pairs(), or of pack_hidden() for bᵀ
  bool gated;                  // every block of 32 columns of b is followed by that of the second weight
  int64_t columns;             // N, of one weight
  bool add;                    // to what stands in to.wide_out_RN
  TileEpilogue to;             // c, whose first column is that of b
  int64_t row_begin = 0, row_end = 0;  // of this call; row_begin is a multiple of 32
};

// Of scratch for one thread: bfloat16 elements, for `linear` too; floats.
int64_t tile_matmul_scratch(int64_t inner);
int64_t tile_matmul_sums(int64_t columns, bool gated);

}  // namespace archer::kernels
