// What the case lists of decoding on a GPU have in common: repeatable numbers, bfloat16, comparisons. Without torch.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "kernels/decode_ops.h"
#include "kernels/decoder_math.h"
#include "tests/check.h"

namespace archer::decode_cases {

using Bits = std::vector<uint16_t>;

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15u + 1) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 33);
  }
  double uniform() { return next() / 2147483648.0; }
  double normal() {  // near enough: twelve uniforms
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  Bits bf16(size_t size, double scale, double shift = 0) {
    Bits values(size);
    for (auto& value : values) value = kernels::narrow<uint16_t>(static_cast<float>(normal() * scale + shift));
    return values;
  }

 private:
  uint64_t state_;
};

inline double wide(uint16_t bits) { return kernels::widen(bits); }
inline double rounded(double value) { return kernels::widen(kernels::narrow<uint16_t>(static_cast<float>(value))); }

// Counts as one check: |got - expected| <= tolerance everywhere, and where not, the first place and by how much.
template <typename Got, typename Expected, typename Tolerance>
void check_all(const std::string& name, size_t size, Got got, Expected expected, Tolerance tolerance) {
  for (size_t i = 0; i < size; ++i) {
    const double difference = std::abs(got(i) - expected(i));
    if (difference <= tolerance(i)) continue;
    std::printf("%s: element %zu is %g, expected %g within %g\n", name.c_str(), i, got(i), expected(i), tolerance(i));
    CHECK(false);
    return;
  }
  CHECK(true);
}

constexpr double kBf16Step = 1.0 / 128;  // twice the largest rounding error

inline std::vector<DecodeRow> running_rows(const std::vector<int32_t>& positions) {
  std::vector<DecodeRow> rows(positions.size());
  for (size_t r = 0; r < rows.size(); ++r) {
    rows[r] = {0, positions[r], 100, 0, RowState::running, static_cast<int32_t>(r)};
  }
  return rows;
}

}  // namespace archer::decode_cases
