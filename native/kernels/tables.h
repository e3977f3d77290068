// The tables of the instruction sets, for select.cc. The x86 ones exist where LORIKEET_X86 is defined.
#pragma once

#include "kernels/ops.h"

namespace lorikeet {

extern const Ops kReference;
extern const Ops kAvx2Float32, kAvx2Bfloat16;
extern const Ops kAvx512Float32, kAvx512Bfloat16;
extern const Ops kAvx512Bf16;
extern const Ops kAmx;

}  // namespace lorikeet
