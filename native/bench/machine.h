// What the native programs say about the machine they run on.
#pragma once
#include <ATen/Version.h>
#include <torch/headeronly/version.h>

#include <string>

#include "bench/process_stats.h"

namespace archer::bench {

inline std::string machine_json() {
  return "{\"cpu\": " + json_text(processor_name()) + ", \"cores\": " + std::to_string(num_processors()) +
         ", \"cpuCapability\": " + json_text(at::get_cpu_capability()) + ", \"libtorch\": " + json_text(TORCH_VERSION) +
         "}";
}

}  // namespace archer::bench
