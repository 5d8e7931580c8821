// Which kernels serve this processor; see tile_head.h.
#include "kernels/tile_head.h"

#include <algorithm>

#include "kernels/cpu_isa.h"
#include "kernels/tile_attention_backward_scratch.h"

namespace archer::kernels {

#if defined(ARCHER_TILE_KERNELS)
extern const TileKernels kAmxTileKernels, kAvx512TileKernels;
#endif

int64_t tile_scratch_elements(int64_t hidden) {
  return transposed_ids(hidden) * (tile_blocks(hidden) + 2) * kTile;  // headᵀ, two blocks of exponentials
}

int64_t tile_attention_scratch(int64_t tokens, int64_t group, int64_t head_dim) {
  const int64_t columns = tile_blocks(head_dim) * kTile, tiles = (tokens * group + kQueryTile - 1) / kQueryTile;
  return (kKeyBlock + kQueryTile / 2) * columns + tiles * tile_state_floats(columns);
}

int64_t tile_attention_backward_scratch(int64_t length, int64_t group, int64_t head_dim) {
  BackwardScratch counted;
  return lay_out(length, group, head_dim, nullptr, counted);
}

int64_t tile_matmul_scratch(int64_t inner) { return kTile * tile_blocks(inner) * kTile; }

int64_t tile_matmul_sums(int64_t columns, bool gated) {
  return std::max<int64_t>(4, (gated ? 2 : 1) * tile_blocks(columns)) * kBlockElements;
}

const TileKernels* tile_kernels() {
#if defined(ARCHER_TILE_KERNELS)
  if (cpu_isa() == CpuIsa::amx) return &kAmxTileKernels;
  if (cpu_isa() == CpuIsa::avx512_bf16) return &kAvx512TileKernels;
#endif
  return nullptr;
}

}  // namespace archer::kernels
