#pragma once

#include "lora.cuh"

namespace lorikeet::cuda {

constexpr int kSiluThreads = 256;

// y = silu(gate + B h) * (up + B h). Grid [ffn / kSiluThreads, rows].
struct SiluArgs {
  Bf16* y;               // [rows, stride]
  const float* gate_up;  // [rows, 2 ffn]
  int32_t ffn, stride;
  Expand expand;
};
__global__ void __launch_bounds__(kSiluThreads) silu_mul(SiluArgs p) {
  grid_wait();
  grid_launch_next();
  const int row = blockIdx.y, col = blockIdx.x * kSiluThreads + threadIdx.x;
  if (col >= p.ffn) return;
  const float* from = p.gate_up + static_cast<int64_t>(row) * 2 * p.ffn;
  float gate = from[col], up = from[p.ffn + col];
  if (const int slot = p.expand.slot(row); slot >= 0) {
    gate = p.expand.add(gate, row, slot, Module::kGate, 0, col);
    up = p.expand.add(up, row, slot, Module::kUp, 1, col);
  }
  p.y[static_cast<int64_t>(row) * p.stride + col] = to_bf16(gate / (1.0f + __expf(-gate)) * up);
}

}  // namespace lorikeet::cuda
