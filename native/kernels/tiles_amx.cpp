// The tile kernels with AMX: eight tile registers hold a 2 x 2 block of sums, two operands from each side.
#if defined(__AMX_BF16__)
#include "kernels/tile_attention_backward_kernels.h"
#include "kernels/tile_attention_kernels.h"
#include "kernels/tile_head_kernels.h"
#include "kernels/tile_linear_kernels.h"
#include "kernels/tile_matmul_kernels.h"

#include <atomic>

namespace archer::kernels {
namespace {

// GCC 12 does not know that tile instructions read memory: what was just written must be there by then.
inline __attribute__((always_inline)) void settle_memory() { std::atomic_signal_fence(std::memory_order_seq_cst); }

struct AmxTiles {
  // The shapes of the tiles are per-thread state, which libtorch's own kernels set too.
  struct Session {
    Session() {
      alignas(64) static constexpr struct {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
      } kConfig;
      _tile_loadconfig(&kConfig);
    }
    ~Session() { _tile_release(); }
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;
  };

  template <bool Add, Passes kPasses = Passes::a, class Aside>
  static inline __attribute__((always_inline)) void product(const uint16_t* a, int64_t lda, int64_t a_step, const uint16_t* b,
                                                            int64_t steps, float* c, int64_t ldc, Aside aside) {
    settle_memory();
    const int64_t a_stride = lda * 2, c_stride = ldc * 4;
    const uint16_t* a_low = a + 16 * lda;
    float* c_low = c + 16 * ldc;
    if (Add) {
      _tile_loadd(0, c, c_stride);
      _tile_loadd(1, c + 16, c_stride);
      _tile_loadd(2, c_low, c_stride);
      _tile_loadd(3, c_low + 16, c_stride);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    // Streaming what passes by leaves the L1 cache to what stays.
    for (int64_t k = 0; k < steps; ++k) {
      if constexpr (kPasses == Passes::a) {
        _tile_stream_loadd(4, a + k * a_step, a_stride);
        _tile_loadd(6, b + k * kBlockElements, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + k * kBlockElements + 512, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stream_loadd(5, a_low + k * a_step, a_stride);
      } else {
        _tile_loadd(4, a + k * a_step, a_stride);
        _tile_stream_loadd(6, b + k * kBlockElements, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_stream_loadd(7, b + k * kBlockElements + 512, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a_low + k * a_step, a_stride);
      }
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      aside(k);
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + 16, c_stride);
    _tile_stored(2, c_low, c_stride);
    _tile_stored(3, c_low + 16, c_stride);
  }

  template <class Aside>
  static inline __attribute__((always_inline)) void narrow_product(const uint16_t* a, int64_t lda, const uint16_t* b,
                                                                   int64_t steps, float* c, int64_t ldc, Aside aside) {
    settle_memory();
    const uint16_t* a_low = a + 16 * lda;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t k = 0; k < steps; ++k) {
      _tile_loadd(4, b + k * kBlockElements, 64);
      _tile_stream_loadd(5, a + k * kTile, lda * 2);
      _tile_dpbf16ps(0, 5, 4);
      _tile_stream_loadd(6, a_low + k * kTile, lda * 2);
      _tile_dpbf16ps(1, 6, 4);
      aside(k);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(1, c + 16 * ldc, ldc * 4);
  }

  template <bool Add>
  static inline __attribute__((always_inline)) void strip(const uint16_t* a, int64_t steps, const uint16_t* b, int64_t columns,
                                                          int64_t, float* c) {
    settle_memory();
    const int64_t a_stride = steps * 64, c_stride = columns * 4, column_step = steps * 512;
    for (int64_t column = 0; column < columns; column += kTile, b += 2 * column_step, c += kTile) {
      if (Add) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(1, c + 16, c_stride);
      } else {
        _tile_zero(0);
        _tile_zero(1);
      }
      for (int64_t k = 0; k < steps; ++k) {
        _tile_loadd(4, a + k * kTile, a_stride);
        _tile_loadd(6, b + k * 512, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + column_step + k * 512, 64);
        _tile_dpbf16ps(1, 4, 7);
      }
      _tile_stored(0, c, c_stride);
      _tile_stored(1, c + 16, c_stride);
    }
  }

  static constexpr bool kReadsKeys = true;
  static inline __attribute__((always_inline)) void column(const uint16_t* a, int64_t lda, const uint16_t* b, int64_t steps,
                                                           float* c) {
    settle_memory();
    const int64_t stride = lda * 2;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < steps; ++k, a += kTile) {
      _tile_loadd(4, b + k * 512, 64);
      _tile_loadd(5, a, stride);
      _tile_dpbf16ps(0, 5, 4);
      _tile_loadd(6, a + 16 * lda, stride);
      _tile_dpbf16ps(1, 6, 4);
      _tile_loadd(7, a + 32 * lda, stride);
      _tile_dpbf16ps(2, 7, 4);
      _tile_loadd(5, a + 48 * lda, stride);
      _tile_dpbf16ps(3, 5, 4);
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    _tile_stored(2, c + 512, 64);
    _tile_stored(3, c + 768, 64);
  }
};

}  // namespace

extern const TileKernels kAmxTileKernels = {
    pack_hidden,      pack_scaled_hidden,    sampled_logits<AmxTiles>, forward<AmxTiles>, sum_row, largest_logits<AmxTiles>,
    entropy_gradient, grad_hidden<AmxTiles>, grad_head<AmxTiles>, grad_rows,
    linear<AmxTiles>, attention<AmxTiles>, attention_backward<AmxTiles>,
    pack_pairs,       transpose, matmul<AmxTiles>};

}  // namespace archer::kernels
#endif
