// Which instruction sets the kernels may use: found once at run time, so that one binary serves every x86-64 processor
// (and, as plain C++, every other one). Each step includes those before it.
#pragma once

namespace archer {

// avx512: F, BW, DQ, VL. avx512_bf16: with BF16 and VBMI2 (Zen 4, Cooper Lake's successors). amx: with AMX-BF16, where
// the kernel lets us use its tiles.
enum class CpuIsa { plain, avx2, avx512, avx512_bf16, amx };

// The widest that this processor has and ARCHER_CPU_ISA (plain, avx2, avx512, avx512_bf16, amx) allows.
CpuIsa cpu_isa();
const char* cpu_isa_name(CpuIsa isa);

// Lowers what cpu_isa() answers, for tests and benchmarks; never beyond the processor's own. Returns the new answer.
// Not thread-safe: call it while no kernel runs.
CpuIsa limit_cpu_isa(CpuIsa isa);

}  // namespace archer
