// The whole test framework of the C++ side: CHECK records a failure and goes on; main returns finish().
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>

namespace check {
inline int failures = 0, passes = 0;
inline int finish() {
  std::printf("%d checks passed, %d failed\n", passes, failures);
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
}  // namespace check

#undef CHECK  // c10's logging has one of that name
#define CHECK(condition)                                                            \
  do {                                                                              \
    if (condition) {                                                                \
      ++check::passes;                                                              \
    } else {                                                                        \
      ++check::failures;                                                            \
      std::printf("%s:%d: CHECK failed: %s\n", __FILE__, __LINE__, #condition);     \
    }                                                                               \
  } while (0)

// |a - b| <= tolerance, and neither is NaN
#define CHECK_NEAR(a, b, tolerance)                                                                       \
  do {                                                                                                    \
    const double check_a = static_cast<double>(a), check_b = static_cast<double>(b);                      \
    if (std::abs(check_a - check_b) <= (tolerance)) {                                                     \
      ++check::passes;                                                                                    \
    } else {                                                                                              \
      ++check::failures;                                                                                  \
      std::printf("%s:%d: %s = %.12g, expected %.12g within %g\n", __FILE__, __LINE__, #a, check_a, check_b, \
                  static_cast<double>(tolerance));                                                        \
    }                                                                                                     \
  } while (0)
