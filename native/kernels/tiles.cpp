// Which kernels serve this processor; see tile_head.h.
#include "kernels/tile_head.h"

#include "kernels/cpu_isa.h"

namespace archer::kernels {

#if defined(ARCHER_TILE_KERNELS)
extern const TileKernels kAmxTileKernels, kAvx512TileKernels;
#endif

int64_t tile_scratch_elements(int64_t hidden) {
  return kVocabularyStep * tile_blocks(hidden) * kTile + kVocabularyStep * kTile;
}

const TileKernels* tile_kernels() {
#if defined(ARCHER_TILE_KERNELS)
  if (cpu_isa() == CpuIsa::amx) return &kAmxTileKernels;
  if (cpu_isa() == CpuIsa::avx512_bf16) return &kAvx512TileKernels;
#endif
  return nullptr;
}

}  // namespace archer::kernels
