#include "kernels/avx512/vec.h"
#include "kernels/simd/ops.inc.h"

namespace lorikeet {

const Ops kAvx512Ops = ops_named("avx512");

}  // namespace lorikeet
