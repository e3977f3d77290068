#include "kernels/avx2/vec.h"
#include "kernels/simd/ops.inc.h"

namespace lorikeet {

const Ops kAvx2Ops = ops_named("avx2");

}  // namespace lorikeet
