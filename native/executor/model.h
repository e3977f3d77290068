// What the engine is told about a model: native/types.ts in C++.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "kernels/dtypes.h"

namespace lorikeet {

struct FileTensor {
  int64_t file = 0;
  int64_t offset = 0;
  int64_t bytes = 0;
  Dtype dtype = Dtype::kF32;
  std::vector<int64_t> shape;
};

struct ModelConfig {
  int64_t layers = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t ffn = 0;
  int64_t vocab = 0;
  int64_t context = 0;
  float rms_eps = 0;
  std::vector<float> rope_inv_freq;  // [head_dim / 2]
  float rope_attention_scale = 1;

  int64_t q_dim() const { return heads * head_dim; }
  int64_t kv_dim() const { return kv_heads * head_dim; }
};

struct LayerTensors {
  FileTensor input_norm, post_attention_norm;
  FileTensor q, k, v, o, gate, up, down;
  std::optional<FileTensor> q_bias, k_bias, v_bias, q_norm, k_norm;
};

struct ModelDescriptor {
  ModelConfig config;
  std::vector<std::string> files;
  FileTensor embed, norm, head;
  std::vector<LayerTensors> layers;
};

}  // namespace lorikeet
