// The one table of instruction sets.
#include <array>

#include "kernels/tables.h"

#ifdef LORIKEET_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lorikeet {
namespace {

#ifdef LORIKEET_X86

// Not every compiler knows "f16c", "avx512bf16" or "amx-bf16" in __builtin_cpu_supports.
struct CpuId {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  CpuId(unsigned leaf, unsigned subleaf) { __get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx); }
};

// __builtin_cpu_supports also asks whether the operating system saves the registers.
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && (CpuId(1, 0).ecx & bit_F16C);
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

bool cpu_has_avx512bf16() { return cpu_has_avx512() && (CpuId(7, 1).eax & 1u << 5); }

// Linux gives a process the tile registers (8 KiB per thread to save) when it asks for them.
bool cpu_has_amx() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;
  const unsigned features = CpuId(7, 0).edx;
  const bool tiles_and_bf16 = (features & 1u << 24) && (features & 1u << 22);
  return cpu_has_avx512() && tiles_and_bf16 && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#endif

constexpr std::array kInstructionSets = {
    Isa{"reference", &kReference, nullptr, [] { return true; }},
#ifdef LORIKEET_X86
    Isa{"avx2", &kAvx2Float32, &kAvx2Bfloat16, cpu_has_avx2},
    Isa{"avx512", &kAvx512Float32, &kAvx512Bfloat16, cpu_has_avx512},
    Isa{"avx512bf16", &kAvx512Float32, &kAvx512Bf16, cpu_has_avx512bf16},
    Isa{"amx", &kAvx512Float32, &kAmx, cpu_has_amx},
#endif
};

}  // namespace

std::span<const Isa> instruction_sets() { return kInstructionSets; }

}  // namespace lorikeet
