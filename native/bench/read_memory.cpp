// Four independent sums over 64-byte vectors; the AVX-512 copy of the loop is chosen at run time.
#include "bench/read_memory.h"

namespace archer::bench {
namespace {

using Line = uint64_t __attribute__((vector_size(64)));
constexpr int64_t kLinesAhead = 32;

template <bool kPrefetch>
__attribute__((always_inline)) inline uint64_t sum_lines(const Line* lines, int64_t count) {
  Line a{}, b{}, c{}, d{};
  for (int64_t i = 0; i < count; i += 4) {
    if constexpr (kPrefetch) {
      for (int64_t j = 0; j < 4; ++j) __builtin_prefetch(lines + i + j + kLinesAhead);
    }
    a += lines[i];
    b += lines[i + 1];
    c += lines[i + 2];
    d += lines[i + 3];
  }
  a += b + c + d;
  uint64_t sum = 0;
  for (int i = 0; i < 8; ++i) sum += a[i];
  return sum;
}

uint64_t read_plain(const Line* lines, int64_t count, bool prefetch) {
  return prefetch ? sum_lines<true>(lines, count) : sum_lines<false>(lines, count);
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) uint64_t read_avx512(const Line* lines, int64_t count, bool prefetch) {
  return prefetch ? sum_lines<true>(lines, count) : sum_lines<false>(lines, count);
}
#endif

}  // namespace

uint64_t read_memory(const void* begin, int64_t bytes, bool prefetch) {
  const auto* lines = static_cast<const Line*>(begin);
  const int64_t count = bytes / static_cast<int64_t>(sizeof(Line));
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return read_avx512(lines, count, prefetch);
#endif
  return read_plain(lines, count, prefetch);
}

}  // namespace archer::bench
