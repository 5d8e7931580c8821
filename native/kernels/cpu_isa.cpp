// CPUID, and the permission that Linux wants for AMX; see cpu_isa.h.
#include "kernels/cpu_isa.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace archer {
namespace {

constexpr CpuIsa kAll[] = {CpuIsa::plain, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::avx512_bf16, CpuIsa::amx};

#if defined(__x86_64__)
bool amx_permitted() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (!(edx & kAmxBf16) || !(edx & kAmxTile)) return false;
#if defined(__linux__)
  // Tile data is 8 KB of state that Linux saves only for processes that asked (arch_prctl, ARCH_REQ_XCOMP_PERM).
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}
#endif

CpuIsa detect() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return CpuIsa::plain;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuIsa::avx2;
  }
  if (!__builtin_cpu_supports("avx512bf16") || !__builtin_cpu_supports("avx512vbmi2")) return CpuIsa::avx512;
  return amx_permitted() ? CpuIsa::amx : CpuIsa::avx512_bf16;
#else
  return CpuIsa::plain;
#endif
}

CpuIsa allowed() {
  const CpuIsa found = detect();
  const char* wanted = std::getenv("ARCHER_CPU_ISA");
  if (!wanted) return found;
  for (const CpuIsa isa : kAll) {
    if (std::strcmp(wanted, cpu_isa_name(isa)) == 0) return std::min(isa, found);
  }
  return found;
}

CpuIsa& current() {
  static CpuIsa isa = allowed();
  return isa;
}

}  // namespace

CpuIsa cpu_isa() { return current(); }

const char* cpu_isa_name(CpuIsa isa) {
  constexpr const char* kNames[] = {"plain", "avx2", "avx512", "avx512_bf16", "amx"};
  return kNames[static_cast<int>(isa)];
}

CpuIsa limit_cpu_isa(CpuIsa isa) {
  static const CpuIsa most = allowed();
  return current() = std::min(isa, most);
}

}  // namespace archer
