// Scalars and small loops shared by the decoder's kernels. bfloat16 travels as its bits in a uint16_t, so that nothing
// here knows libtorch; sums run in float (double for double). The loops are written for `omp simd` and compiled for
// several instruction sets through ARCHER_CLONES.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ARCHER_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ARCHER_CLONES
#endif
#define ARCHER_INLINE inline __attribute__((always_inline))

namespace archer::kernels {

template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

ARCHER_INLINE float widen(float value) { return value; }
ARCHER_INLINE double widen(double value) { return value; }
ARCHER_INLINE float widen(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

template <typename T>
ARCHER_INLINE T narrow(Accumulator<T> value) {
  if constexpr (std::is_same_v<T, uint16_t>) {  // round to nearest even; a NaN stays a (quiet) NaN
    uint32_t word;
    std::memcpy(&word, &value, sizeof word);
    const uint32_t rounded = (word + 0x7FFFu + ((word >> 16) & 1u)) >> 16;
    const bool is_nan = (word & 0x7FFFFFFFu) > 0x7F800000u;
    return static_cast<uint16_t>(is_nan ? ((word >> 16) | 0x40u) : rounded);
  } else {
    return value;
  }
}

// e^x within 2 ulp for x in [-87, 88], clamped outside: the float version vectorises, libm's does not.
ARCHER_INLINE float exponential(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the sum's low bits are round(x / ln 2)
  const float n = shifted - 12582912.0f;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t exponent;
  std::memcpy(&exponent, &shifted, sizeof exponent);
  const int32_t word = (exponent - 0x4B400000 + 127) << 23;
  float scale;
  std::memcpy(&scale, &word, sizeof scale);
  return p * scale;
}
ARCHER_INLINE double exponential(double x) { return std::exp(x); }

}  // namespace archer::kernels
