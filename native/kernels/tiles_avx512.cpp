// The tile kernels with AVX512-BF16: eight rows by two vectors of sums, each row's pair broadcast from memory.
#if defined(__AVX512BF16__)
#include "kernels/tile_attention_backward_kernels.h"
#include "kernels/tile_attention_kernels.h"
#include "kernels/tile_head_kernels.h"
#include "kernels/tile_linear_kernels.h"
#include "kernels/tile_matmul_kernels.h"

namespace archer::kernels {
namespace {

struct Avx512Tiles {
  struct Session {
    Session() {}  // nothing to set up, but not trivial: else the unused variable would be warned of
  };

  template <bool Add, Passes = Passes::a, class Aside>
  static inline __attribute__((always_inline)) void product(const uint16_t* a, int64_t lda, int64_t a_step, const uint16_t* b,
                                                            int64_t steps, float* c, int64_t ldc, Aside aside) {
    for (int64_t k = 0; k < steps; ++k) aside(k);
    constexpr int kRows = 8;
    for (int64_t m = 0; m < kTile; m += kRows) {
      __m512 sums[kRows][2];
      for (int i = 0; i < kRows; ++i) {
        for (int half = 0; half < 2; ++half) {
          sums[i][half] = Add ? _mm512_loadu_ps(c + (m + i) * ldc + 16 * half) : _mm512_setzero_ps();
        }
      }
      for (int64_t k = 0; k < steps; ++k) {
        const uint16_t* a_k = a + m * lda + k * a_step;
        const uint16_t* b_k = b + k * kBlockElements;
        for (int pair = 0; pair < 16; ++pair) {
          const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b_k + pair * 32));
          const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b_k + 512 + pair * 32));
#pragma GCC unroll 8
          for (int i = 0; i < kRows; ++i) {
            int32_t two;
            std::memcpy(&two, a_k + i * lda + 2 * pair, sizeof(two));
            const __m512bh row = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], row, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], row, b1);
          }
        }
      }
      for (int i = 0; i < kRows; ++i) {
        for (int half = 0; half < 2; ++half) _mm512_storeu_ps(c + (m + i) * ldc + 16 * half, sums[i][half]);
      }
    }
  }

  template <class Aside>
  static inline __attribute__((always_inline)) void narrow_product(const uint16_t* a, int64_t lda, const uint16_t* b,
                                                                   int64_t steps, float* c, int64_t ldc, Aside aside) {
    for (int64_t k = 0; k < steps; ++k) aside(k);
    constexpr int kRows = 16;
    for (int64_t m = 0; m < kTile; m += kRows) {
      __m512 sums[kRows];
      for (int i = 0; i < kRows; ++i) sums[i] = _mm512_setzero_ps();
      for (int64_t k = 0; k < steps; ++k) {
        const uint16_t* a_k = a + m * lda + k * kTile;
        for (int pair = 0; pair < 16; ++pair) {
          const __m512bh column = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + k * kBlockElements + pair * 32));
#pragma GCC unroll 16
          for (int i = 0; i < kRows; ++i) {
            int32_t two;
            std::memcpy(&two, a_k + i * lda + 2 * pair, sizeof(two));
            sums[i] = _mm512_dpbf16_ps(sums[i], reinterpret_cast<__m512bh>(_mm512_set1_epi32(two)), column);
          }
        }
      }
      for (int i = 0; i < kRows; ++i) _mm512_storeu_ps(c + (m + i) * ldc, sums[i]);
    }
  }

  static constexpr bool kReadsKeys = false;  // one multiplication serves 16 lanes: all would be busy for few queries

  template <bool Add>
  static inline __attribute__((always_inline)) void strip(const uint16_t* a, int64_t steps, const uint16_t* b, int64_t columns,
                                                          int64_t rows, float* c) {
    constexpr int kRows = 4;
    for (int64_t m = 0; m < rows; m += kRows) {
      for (int64_t column = 0; column < columns; column += kTile) {
        const uint16_t *left = b + column * steps * 32, *right = left + steps * 512;
        float* target = c + m * columns + column;
        __m512 sums[kRows][2];
        for (int i = 0; i < kRows; ++i) {
          for (int half = 0; half < 2; ++half) {
            sums[i][half] = Add ? _mm512_loadu_ps(target + i * columns + 16 * half) : _mm512_setzero_ps();
          }
        }
        for (int64_t pair = 0; pair < 16 * steps; ++pair) {
          const __m512bh b0 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(left + pair * 32));
          const __m512bh b1 = reinterpret_cast<__m512bh>(_mm512_loadu_si512(right + pair * 32));
#pragma GCC unroll 4
          for (int i = 0; i < kRows; ++i) {
            int32_t two;
            std::memcpy(&two, a + (m + i) * steps * kTile + 2 * pair, sizeof(two));
            const __m512bh row = reinterpret_cast<__m512bh>(_mm512_set1_epi32(two));
            sums[i][0] = _mm512_dpbf16_ps(sums[i][0], row, b0);
            sums[i][1] = _mm512_dpbf16_ps(sums[i][1], row, b1);
          }
        }
        for (int i = 0; i < kRows; ++i) {
          for (int half = 0; half < 2; ++half) _mm512_storeu_ps(target + i * columns + 16 * half, sums[i][half]);
        }
      }
    }
  }
};

}  // namespace

extern const TileKernels kAvx512TileKernels = {
    pack_hidden,      pack_scaled_hidden,    sampled_logits<Avx512Tiles>, forward<Avx512Tiles>, sum_row, largest_logits<Avx512Tiles>,
    entropy_gradient, grad_hidden<Avx512Tiles>, grad_head<Avx512Tiles>, grad_rows,
    linear<Avx512Tiles>, attention<Avx512Tiles>, attention_backward<Avx512Tiles>,
    pack_pairs,       transpose, matmul<Avx512Tiles>};

}  // namespace archer::kernels
#endif
