// The base model's files, mapped, and its tensors as the descriptor finds them there: every shape and offset
// is checked against the config and the files' real sizes. Errors are invalid_argument and name the field.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/pack.h"
#include "mapped_memory.h"
#include "model.h"
#include "modules.h"

namespace lorikeet {

// cos and sin of every position's angles, [context, head_dim / 2].
struct RopeTable {
  std::vector<float> cos, sin;
};
RopeTable rope_table(const ModelConfig& config);

// A layer's tensors of one projection, with the names that errors give them.
struct ProjectionTensors {
  const FileTensor& weight;
  const char* name;
  const std::optional<FileTensor>* bias;  // null where no model has one
  const char* bias_name;
};
ProjectionTensors tensors_of(const LayerTensors& layer, Module module);

class ModelFiles {
 public:
  // Checks the config, and that there are as many layers as it says.
  explicit ModelFiles(const ModelDescriptor& descriptor);

  // `name`: as in native/types.ts, with the layer before it. The matrix lies in the mapped file.
  Matrix matrix(const FileTensor& tensor, int64_t rows, int64_t cols, const std::string& name) const;
  // Widened.
  std::vector<float> vector(const FileTensor& tensor, int64_t n, const std::string& name) const;
  // Empty where the model has none.
  std::vector<float> vector(const std::optional<FileTensor>& tensor, int64_t n,
                            const std::string& name) const {
    return tensor ? vector(*tensor, n, name) : std::vector<float>();
  }

  // What was read need not count as this process's memory any longer.
  void let_go() const;

 private:
  const std::byte* bytes(const FileTensor& tensor, const std::vector<int64_t>& shape,
                         const std::string& name) const;

  std::vector<MappedMemory> files_;
};

}  // namespace lorikeet
