// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// One rule for the whole project: a number depends on (seed, step, prompt key, sample index, position) alone, never on
// batch size, order, thread count or resume.
#pragma once
#include <array>
#include <cstdint>

namespace archer {

using PhiloxBlock = std::array<uint32_t, 4>;

inline PhiloxBlock philox4x32(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1) with 53 bits, for the token at `position` (0-based, counted from the first generated token) of
// sample `sample_index` of the prompt `prompt_key` at training step `step`.
inline double sample_uniform(uint64_t seed, uint32_t step, uint32_t prompt_key, uint32_t sample_index, uint32_t position) {
  const PhiloxBlock block = philox4x32({position, sample_index, prompt_key, step}, static_cast<uint32_t>(seed),
                                       static_cast<uint32_t>(seed >> 32));
  const uint64_t bits = (static_cast<uint64_t>(block[0]) << 32 | block[1]) >> 11;
  return static_cast<double>(bits) * 0x1.0p-53;
}

}  // namespace archer
