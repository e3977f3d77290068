#include "model_files.h"

#include <cmath>

#include "error.h"
#include "kernels/layout.h"

namespace lorikeet {
namespace {

using Shape = std::vector<int64_t>;

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

void check(const ModelDescriptor& descriptor) {
  const ModelConfig& c = descriptor.config;
  if (c.heads % c.kv_heads != 0) throw EngineError::invalid("kvHeads", "Expected kvHeads to divide heads");
  if (c.head_dim % 2 != 0 || c.head_dim > kHeadDimMax) {
    throw EngineError::invalid("headDim", "Expected an even number up to " + std::to_string(kHeadDimMax) +
                                              " for headDim but received " + std::to_string(c.head_dim));
  }
  if (static_cast<int64_t>(c.rope_inv_freq.size()) != c.head_dim / 2) {
    throw EngineError::invalid("ropeInvFreq", "Expected " + std::to_string(c.head_dim / 2) +
                                                  " values for ropeInvFreq but received " +
                                                  std::to_string(c.rope_inv_freq.size()));
  }
  if (static_cast<int64_t>(descriptor.layers.size()) != c.layers) {
    throw EngineError::invalid("layers", "Expected " + std::to_string(c.layers) + " layers but received " +
                                             std::to_string(descriptor.layers.size()));
  }
}

}  // namespace

RopeTable rope_table(const ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  RopeTable table;
  table.cos.resize(static_cast<size_t>(config.context * half));
  table.sin.resize(table.cos.size());
  for (int64_t position = 0; position < config.context; ++position) {
    for (int64_t j = 0; j < half; ++j) {
      // The angle is a float32 product, as in the models' own code; at long positions the rounding is
      // visible.
      const float angle = static_cast<float>(position) * config.rope_inv_freq[static_cast<size_t>(j)];
      const auto at = static_cast<size_t>(position * half + j);
      table.cos[at] = static_cast<float>(std::cos(angle)) * config.rope_attention_scale;
      table.sin[at] = static_cast<float>(std::sin(angle)) * config.rope_attention_scale;
    }
  }
  return table;
}

ProjectionTensors tensors_of(const LayerTensors& l, Module module) {
  switch (module) {
    case Module::kQ: return {l.q, "qProj", &l.q_bias, "qBias"};
    case Module::kK: return {l.k, "kProj", &l.k_bias, "kBias"};
    case Module::kV: return {l.v, "vProj", &l.v_bias, "vBias"};
    case Module::kO: return {l.o, "oProj", nullptr, nullptr};
    case Module::kGate: return {l.gate, "gateProj", nullptr, nullptr};
    case Module::kUp: return {l.up, "upProj", nullptr, nullptr};
    default: return {l.down, "downProj", nullptr, nullptr};
  }
}

ModelFiles::ModelFiles(const ModelDescriptor& descriptor) {
  check(descriptor);
  for (const std::string& path : descriptor.files) files_.push_back(MappedMemory::file(path));
}

Matrix ModelFiles::matrix(const FileTensor& tensor, int64_t rows, int64_t cols,
                          const std::string& name) const {
  return {bytes(tensor, {rows, cols}, name), tensor.dtype, rows, cols, cols};
}

std::vector<float> ModelFiles::vector(const FileTensor& tensor, int64_t n, const std::string& name) const {
  std::vector<float> values(static_cast<size_t>(n));
  widen(values.data(), bytes(tensor, {n}, name), tensor.dtype, n);
  return values;
}

void ModelFiles::let_go() const {
  for (const MappedMemory& file : files_) file.let_go();
}

const std::byte* ModelFiles::bytes(const FileTensor& tensor, const Shape& shape,
                                   const std::string& name) const {
  if (tensor.shape != shape) {
    throw EngineError::invalid(
        name, "Expected shape " + text_of(shape) + " for " + name + " but received " + text_of(tensor.shape));
  }
  if (tensor.file < 0 || tensor.file >= static_cast<int64_t>(files_.size())) {
    throw EngineError::invalid(name, "Expected a file index for " + name);
  }
  int64_t count = 1;
  for (const int64_t side : shape) count *= side;
  const MappedMemory& file = files_[static_cast<size_t>(tensor.file)];
  const int64_t size = static_cast<int64_t>(file.bytes());
  const bool inside = tensor.offset >= 0 && tensor.bytes == count * dtype_bytes(tensor.dtype) &&
                      tensor.offset <= size && tensor.bytes <= size - tensor.offset;
  if (!inside) {
    throw EngineError::invalid(name, "Expected " + std::to_string(count * dtype_bytes(tensor.dtype)) +
                                         " bytes within a file of " + std::to_string(size) + " for " + name +
                                         " but received " + std::to_string(tensor.bytes) + " at " +
                                         std::to_string(tensor.offset));
  }
  return file.data() + tensor.offset;
}

}  // namespace lorikeet
