// The residual and its RMSNorm: one block per row. Grid [rows].
#pragma once

#include "lora.cuh"
#include "reduce.cuh"

namespace lorikeet::cuda {

constexpr int kNormThreads = kIsSmall ? 64 : 512;
constexpr size_t kNormShared = sizeof(float) * kNormThreads / 32;

struct Norm {
  const float* weight;  // [hidden]
  int32_t hidden;
  int32_t stride;  // elements from row to row of what is normed, >= hidden
  float eps;
};

// to = x / sqrt(mean(x^2) + eps) * weight. Each thread reads what it wrote.
__device__ __forceinline__ void norm_row(Bf16* to, const float* x, float squares, const Norm& norm) {
  float* shared = dynamic_shared<float>();
  const float mean = over_block<Plus>(squares, shared) / static_cast<float>(norm.hidden);
  const float inverse = rsqrtf(mean + norm.eps);
  for (int i = threadIdx.x; i < norm.hidden; i += kNormThreads)
    to[i] = to_bf16(x[i] * inverse * norm.weight[i]);
}

// x = embed[token] + B a[:, token]; normed = norm(x).
struct EmbedArgs {
  float* x;           // [rows, hidden]
  Bf16* normed;       // [rows, norm.stride]
  const Bf16* table;  // [vocab, norm.stride]
  const int32_t* tokens;
  Norm norm;
  Expand expand;        // its h is written here: the embedding's A needs no product
  const float* scales;  // [rows]
  int32_t a_cols;       // of the embedding's A
};
__global__ void __launch_bounds__(kNormThreads, 1) embed_norm(EmbedArgs p) {
  grid_wait();
  grid_launch_next();
  const int row = blockIdx.x, slot = p.expand.slot(row), token = p.tokens[row];
  const SlotTable& table = p.expand.table;
  if (slot >= 0) {
    const int64_t at = table.at(slot, 0, Module::kEmbed);
    const Adapted adapted = table.adapted[at];
    auto* h = const_cast<float*>(p.expand.h) + static_cast<int64_t>(row) * p.expand.stride;
    const int ranks = (adapted.rank + kPageRanks - 1) / kPageRanks * kPageRanks;
    for (int j = threadIdx.x; j < ranks; j += kNormThreads) {
      const Bf16* a = table.pages[at * table.pages_max + j / kPageRanks].a;
      h[j] = j < adapted.rank ? to_float(a[static_cast<int64_t>(j % kPageRanks) * p.a_cols + token]) *
                                    (adapted.scale * p.scales[row])
                              : 0.0f;
    }
    __syncthreads();
  }
  const Bf16* from = p.table + static_cast<int64_t>(token) * p.norm.stride;
  float* x = p.x + static_cast<int64_t>(row) * p.norm.hidden;
  float squares = 0;
  for (int i = threadIdx.x; i < p.norm.hidden; i += kNormThreads) {
    float v = to_float(from[i]);
    if (slot >= 0) v = p.expand.add(v, row, slot, Module::kEmbed, 0, i);
    x[i] = v;
    squares += v * v;
  }
  norm_row(p.normed + static_cast<int64_t>(row) * p.norm.stride, x, squares, p.norm);
}

// x += y + B h; normed = norm(x).
struct AddNormArgs {
  float* x;        // [rows, hidden]
  Bf16* normed;    // [rows, norm.stride]
  const float* y;  // [rows, hidden]
  Norm norm;
  Module module;
  Expand expand;
};
__global__ void __launch_bounds__(kNormThreads, 1) add_norm(AddNormArgs p) {
  grid_wait();
  grid_launch_next();
  const int row = blockIdx.x, slot = p.expand.slot(row);
  float* x = p.x + static_cast<int64_t>(row) * p.norm.hidden;
  const float* added = p.y + static_cast<int64_t>(row) * p.norm.hidden;
  float squares = 0;
  for (int i = threadIdx.x; i < p.norm.hidden; i += kNormThreads) {
    float v = added[i];
    if (slot >= 0) v = p.expand.add(v, row, slot, p.module, 0, i);
    v += x[i];
    x[i] = v;
    squares += v * v;
  }
  norm_row(p.normed + static_cast<int64_t>(row) * p.norm.stride, x, squares, p.norm);
}

// normed[i] = norm(x[row of logits i]).
struct GatherNormArgs {
  Bf16* normed;  // [logit rows, norm.stride]
  const float* x;
  const int32_t* rows;
  Norm norm;
};
__global__ void __launch_bounds__(kNormThreads, 1) gather_norm(GatherNormArgs p) {
  grid_wait();
  grid_launch_next();
  const float* x = p.x + static_cast<int64_t>(p.rows[blockIdx.x]) * p.norm.hidden;
  float squares = 0;
  for (int i = threadIdx.x; i < p.norm.hidden; i += kNormThreads) squares += x[i] * x[i];
  norm_row(p.normed + static_cast<int64_t>(blockIdx.x) * p.norm.stride, x, squares, p.norm);
}

}  // namespace lorikeet::cuda
