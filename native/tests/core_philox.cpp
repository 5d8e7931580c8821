// Philox4x32-10 against the known-answer vectors that Random123 ships (kat_vectors), and the rule built on it.
#include <set>

#include "core/philox.h"
#include "tests/check.h"

namespace {

bool equals(const archer::PhiloxBlock& block, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  return block == archer::PhiloxBlock{a, b, c, d};
}

}  // namespace

int main() {
  CHECK(equals(archer::philox4x32({0, 0, 0, 0}, 0, 0), 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  CHECK(equals(archer::philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, 0xffffffff, 0xffffffff), 0x408f276d,
               0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  CHECK(equals(archer::philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0xa4093822, 0x299f31d0), 0xd16cfe09,
               0x94fdcceb, 0x5001e420, 0x24126ea1));

  // The uniform is the first 53 bits of the block whose counter is (position, sample, prompt, step), key = seed.
  CHECK(archer::sample_uniform(0, 0, 0, 0, 0) == static_cast<double>(0x6627e8d5e169c58dULL >> 11) * 0x1.0p-53);
  CHECK(archer::sample_uniform(0x299f31d0a4093822ULL, 0x03707344, 0x13198a2e, 0x85a308d3, 0x243f6a88) ==
        static_cast<double>(0xd16cfe0994fdccebULL >> 11) * 0x1.0p-53);
  CHECK(archer::sample_uniform(~0ULL, ~0U, ~0U, ~0U, ~0U) < 1.0);

  // Every coordinate matters, and so does each half of the seed.
  std::set<double> values = {archer::sample_uniform(5, 6, 7, 8, 9), archer::sample_uniform(4, 6, 7, 8, 9),
                             archer::sample_uniform(5, 5, 7, 8, 9), archer::sample_uniform(5, 6, 6, 8, 9),
                             archer::sample_uniform(5, 6, 7, 7, 9), archer::sample_uniform(5, 6, 7, 8, 8),
                             archer::sample_uniform(5 + (1ULL << 32), 6, 7, 8, 9)};
  CHECK(values.size() == 7);

  // Uniform: mean and variance of 100,000 numbers within five standard errors (1/sqrt(12 n), sqrt(1/(180 n))).
  double sum = 0.0, squares = 0.0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double u = archer::sample_uniform(1, 0, 0, static_cast<uint32_t>(i % 16), static_cast<uint32_t>(i / 16));
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
  }
  CHECK_NEAR(sum / n, 0.5, 5.0 / std::sqrt(12.0 * n));
  CHECK_NEAR(squares / n, 1.0 / 12.0, 5.0 / std::sqrt(180.0 * n));
  return check::finish();
}
