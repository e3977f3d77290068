// The base model's tensors: matrices stay where the files are mapped, vectors are widened to float32.
#pragma once

#include <vector>

#include "../model.h"
#include "kernels/ops.h"
#include "mapped_memory.h"

namespace lorikeet::cpu {

struct Layer {
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  Matrix q, k, v, o, gate, up, down;
  std::vector<float> qkv_bias;        // [q_dim + 2 * kv_dim], empty where the model has none
  std::vector<float> q_norm, k_norm;  // [head_dim], empty where the model has none
};

struct Weights {
  ModelConfig config;
  Matrix embed, head;       // [vocab, hidden]
  std::vector<float> norm;  // [hidden]
  std::vector<Layer> layers;
  std::vector<float> rope_cos, rope_sin;  // [context, head_dim / 2]

  std::vector<MappedMemory> files;
  std::vector<std::vector<std::byte>> aligned_copies;  // of tensors at odd file offsets
};

// Checks every offset and shape against the files' real sizes.
Weights open_weights(const ModelDescriptor& descriptor);

}  // namespace lorikeet::cpu
