// Errors that cross the door to TypeScript carry a stable code (lib/errors.ts lists them all).
#pragma once
#include <stdexcept>
#include <string>

namespace archer {

class ArcherError : public std::runtime_error {
 public:
  ArcherError(const char* code, const std::string& message) : std::runtime_error(message), code_(code) {}
  const char* code() const noexcept { return code_; }

 private:
  const char* code_;  // one of the string literals below
};

inline constexpr const char* kShape = "ARCHER_E_SHAPE";
inline constexpr const char* kNumeric = "ARCHER_E_NUMERIC";
inline constexpr const char* kModel = "ARCHER_E_MODEL";
inline constexpr const char* kIo = "ARCHER_E_IO";
inline constexpr const char* kOom = "ARCHER_E_OOM";
inline constexpr const char* kDevice = "ARCHER_E_DEVICE";
inline constexpr const char* kConfig = "ARCHER_E_CONFIG";
inline constexpr const char* kAborted = "ARCHER_E_ABORTED";
inline constexpr const char* kDisposed = "ARCHER_E_DISPOSED";
inline constexpr const char* kInternal = "ARCHER_E_INTERNAL";

// A shape or range that the caller got wrong: the message names the value and what was expected.
inline void require(bool condition, const char* code, const std::string& message) {
  if (!condition) throw ArcherError(code, message);
}

}  // namespace archer
