// The base model's tensors: matrices in panels (kernels/layout.h), one copy for every number of rows; vectors
// widened to float32. The embedding table stays where its file is mapped.
#pragma once

#include <functional>
#include <vector>

#include "../model_files.h"
#include "kernels/ops.h"
#include "team.h"

namespace lorikeet::cpu {

struct Projection {
  Panels w;
  std::vector<float> bias;  // [outs, padded to whole panels], empty where the model has none
};

struct Layer {
  std::vector<float> input_norm, post_attention_norm;  // [hidden]
  std::array<Projection, kModules> projections;        // by Module
  std::vector<float> q_norm, k_norm;                   // [head_dim], empty where the model has none

  const Projection& of(Module module) const { return projections[static_cast<size_t>(module)]; }
};

struct Weights {
  ModelFiles files;
  ModelConfig config = {};
  Matrix embed = {};             // [vocab, hidden]
  Panels head = {};              // vocab outputs
  std::vector<float> norm = {};  // [hidden]
  std::vector<Layer> layers = {};
  RopeTable rope = {};
  std::vector<std::byte> embed_copy = {};  // where the file's offset is odd
  MappedMemory panels = {};
};

// Checks every offset and shape against the files' real sizes, then packs. Weights are kept as bf16 where
// they are stored so or `stored` is bf16, as float32 elsewhere. `progress`, if any, is called with bytes done
// and in all.
Weights open_weights(const ModelDescriptor& descriptor, Dtype stored, Team& team,
                     const std::function<void(int64_t, int64_t)>& progress);

}  // namespace lorikeet::cpu
