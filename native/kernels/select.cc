#include <array>

#include "kernels/backends.h"

#ifdef LORIKEET_X86
#include <cpuid.h>
#endif

namespace lorikeet {
namespace {

#ifdef LORIKEET_X86

// Not every compiler knows "f16c" in __builtin_cpu_supports.
bool cpu_has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) && (ecx & bit_F16C);
}

// __builtin_cpu_supports also asks whether the operating system saves the registers.
bool cpu_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
}

bool cpu_has_avx512() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

#endif

constexpr std::array kInstructionSets = {
    Isa{"reference", &kReferenceOps, [] { return true; }},
#ifdef LORIKEET_X86
    Isa{"avx2", &kAvx2Ops, cpu_has_avx2},
    Isa{"avx512", &kAvx512Ops, cpu_has_avx512},
#endif
};

}  // namespace

std::span<const Isa> instruction_sets() { return kInstructionSets; }

}  // namespace lorikeet
