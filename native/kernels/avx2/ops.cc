// clang-format off: ops.inc.h builds on vec.h.
#include "kernels/avx2/vec.h"
#include "kernels/simd/ops.inc.h"
// clang-format on

namespace lorikeet {

const Ops kAvx2Float32 = kFloat32Table;
const Ops kAvx2Bfloat16 = bfloat16_table();

}  // namespace lorikeet
