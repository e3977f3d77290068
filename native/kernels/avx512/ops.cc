// clang-format off: ops.inc.h builds on vec.h.
#include "kernels/avx512/vec.h"
#include "kernels/simd/ops.inc.h"
// clang-format on

namespace lorikeet {

const Ops kAvx512Float32 = kFloat32Table;
const Ops kAvx512Bfloat16 = bfloat16_table();

}  // namespace lorikeet
