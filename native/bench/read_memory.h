// The fastest reading of a block of memory by one thread: what bounds a decode step, which reads every weight once.
#pragma once
#include <cstdint>

namespace archer::bench {

// Reads `bytes` (a multiple of 256) from a 64-byte aligned address; the result keeps the compiler from leaving it out.
// prefetch: ask for lines ahead of the loads, which some processors' own prefetchers make needless.
uint64_t read_memory(const void* begin, int64_t bytes, bool prefetch);

}  // namespace archer::bench
