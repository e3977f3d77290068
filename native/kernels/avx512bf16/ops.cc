// clang-format off: each of these builds on those before it.
#include "kernels/avx512/vec.h"
#include "kernels/simd/ops.inc.h"
#include "kernels/avx512bf16/dot.inc.h"
// clang-format on

namespace lorikeet {

const Ops kAvx512Bf16 = dot_table();

}  // namespace lorikeet
