// The tables of the backends, for select.cc. The x86 ones exist where LORIKEET_X86 is defined.
#pragma once

#include "kernels/ops.h"

namespace lorikeet {

extern const Ops kReferenceOps;
extern const Ops kAvx2Ops;
extern const Ops kAvx512Ops;

}  // namespace lorikeet
