// What a job failed with, as plain data that can travel from the engine thread to JS.
#pragma once
#include <string>

namespace archer {

struct Failure {
  std::string code;
  std::string message;
  std::string detail;  // libtorch's backtrace, where there is one
};

// Call inside a catch (...) block.
Failure current_failure();

}  // namespace archer
