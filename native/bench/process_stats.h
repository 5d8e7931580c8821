// What a benchmark asks the operating system (Linux): clocks, resident memory with a resettable high-water mark, load,
// processor, and glibc's "kept" memory.
#pragma once
#include <malloc.h>
#include <sched.h>
#include <time.h>

#include <climits>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

namespace archer::bench {

inline double clock_seconds(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

inline double wall_seconds() { return clock_seconds(CLOCK_MONOTONIC); }
inline double cpu_seconds() { return clock_seconds(CLOCK_PROCESS_CPUTIME_ID); }  // all threads of the process

// "VmHWM:" (peak) or "VmRSS:" of /proc/self/status in bytes; 0 where it is not there.
inline int64_t status_bytes(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    if (word != key) continue;
    int64_t kib = 0;
    status >> kib;
    return kib * 1024;
  }
  return 0;
}

// The high-water mark falls back to what is resident now. False where the kernel does not allow it.
inline bool reset_peak_memory() {
  std::ofstream clear("/proc/self/clear_refs");
  clear << "5" << std::flush;
  return clear.good();
}

// glibc gives large blocks back to the kernel at every free, and each new one is zeroed page by page: "kept" memory
// stays in the process.
inline void keep_freed_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
}

// libtorch asks for huge pages for its large tensors; before the first of them is made. Reading then is 1.4 times as fast
// where the kernel leaves the choice to the program (transparent_hugepage/enabled: madvise).
inline void use_huge_pages() { setenv("THP_MEM_ALLOC_ENABLE", "1", 0); }

inline double load_average() {
  double load = 0;
  std::ifstream("/proc/loadavg") >> load;
  return load;
}

inline std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

inline int num_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

inline std::string json_text(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    if (static_cast<unsigned char>(c) < 0x20) out += ' ';
    else out += c;
  }
  return out + "\"";
}

inline std::string json_number(double value) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.6g", value);
  return buffer;
}

}  // namespace archer::bench
