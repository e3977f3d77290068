#include "weights.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../error.h"
#include "kernels/dtypes.h"

namespace lorikeet::cpu {
namespace {

using Shape = std::vector<int64_t>;

std::string text_of(const Shape& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

class Opener {
 public:
  explicit Opener(const ModelDescriptor& descriptor) : descriptor_(descriptor), config_(descriptor.config) {}

  Weights open() {
    check_config();
    for (const std::string& path : descriptor_.files) weights_.files.push_back(MappedMemory::file(path));
    weights_.config = config_;
    weights_.embed = matrix(descriptor_.embed, {config_.vocab, config_.hidden}, "embedTokens");
    weights_.head = matrix(descriptor_.head, {config_.vocab, config_.hidden}, "lmHead");
    weights_.norm = vector(descriptor_.norm, config_.hidden, "norm");
    for (size_t i = 0; i < descriptor_.layers.size(); ++i) {
      prefix_ = "layers[" + std::to_string(i) + "].";
      weights_.layers.push_back(layer(descriptor_.layers[i]));
    }
    fill_rope();
    return std::move(weights_);
  }

 private:
  void check_config() const {
    const ModelConfig& c = config_;
    if (c.heads % c.kv_heads != 0) throw EngineError::invalid("kvHeads", "Expected kvHeads to divide heads");
    if (c.head_dim % 2 != 0) throw EngineError::invalid("headDim", "Expected an even headDim");
    if (static_cast<int64_t>(c.rope_inv_freq.size()) != c.head_dim / 2) {
      throw EngineError::invalid("ropeInvFreq", "Expected " + std::to_string(c.head_dim / 2) +
                                                    " values for ropeInvFreq but received " +
                                                    std::to_string(c.rope_inv_freq.size()));
    }
    if (static_cast<int64_t>(descriptor_.layers.size()) != c.layers) {
      throw EngineError::invalid("layers", "Expected " + std::to_string(c.layers) + " layers but received " +
                                               std::to_string(descriptor_.layers.size()));
    }
  }

  const std::byte* bytes(const FileTensor& tensor, const Shape& shape, const std::string& name) {
    if (tensor.shape != shape) {
      throw EngineError::invalid(prefix_ + name, "Expected shape " + text_of(shape) + " for " + prefix_ +
                                                     name + " but received " + text_of(tensor.shape));
    }
    if (tensor.file < 0 || tensor.file >= static_cast<int64_t>(weights_.files.size())) {
      throw EngineError::invalid(prefix_ + name, "Expected a file index for " + prefix_ + name);
    }
    int64_t count = 1;
    for (const int64_t side : shape) count *= side;
    const MappedMemory& file = weights_.files[static_cast<size_t>(tensor.file)];
    const int64_t size = static_cast<int64_t>(file.bytes());
    const bool inside = tensor.offset >= 0 && tensor.bytes == count * dtype_bytes(tensor.dtype) &&
                        tensor.offset <= size && tensor.bytes <= size - tensor.offset;
    if (!inside) {
      throw EngineError::invalid(
          prefix_ + name, "Expected " + std::to_string(count * dtype_bytes(tensor.dtype)) +
                              " bytes within a file of " + std::to_string(size) + " for " + prefix_ + name +
                              " but received " + std::to_string(tensor.bytes) + " at " +
                              std::to_string(tensor.offset));
    }
    return file.data() + tensor.offset;
  }

  Matrix matrix(const FileTensor& tensor, const Shape& shape, const std::string& name) {
    const std::byte* data = bytes(tensor, shape, name);
    if (tensor.offset % dtype_bytes(tensor.dtype) != 0) {
      data = weights_.aligned_copies.emplace_back(data, data + tensor.bytes).data();
    }
    return {data, tensor.dtype, shape[0], shape[1]};
  }

  std::vector<float> vector(const FileTensor& tensor, int64_t n, const std::string& name) {
    std::vector<float> values(static_cast<size_t>(n));
    widen(values.data(), bytes(tensor, {n}, name), tensor.dtype, n);
    return values;
  }

  std::vector<float> vector(const std::optional<FileTensor>& tensor, int64_t n, const std::string& name) {
    return tensor ? vector(*tensor, n, name) : std::vector<float>();
  }

  Layer layer(const LayerTensors& t) {
    const ModelConfig& c = config_;
    Layer l;
    l.input_norm = vector(t.input_norm, c.hidden, "inputNorm");
    l.post_attention_norm = vector(t.post_attention_norm, c.hidden, "postAttentionNorm");
    l.q = matrix(t.q, {c.q_dim(), c.hidden}, "qProj");
    l.k = matrix(t.k, {c.kv_dim(), c.hidden}, "kProj");
    l.v = matrix(t.v, {c.kv_dim(), c.hidden}, "vProj");
    l.o = matrix(t.o, {c.hidden, c.q_dim()}, "oProj");
    l.gate = matrix(t.gate, {c.ffn, c.hidden}, "gateProj");
    l.up = matrix(t.up, {c.ffn, c.hidden}, "upProj");
    l.down = matrix(t.down, {c.hidden, c.ffn}, "downProj");
    l.q_norm = vector(t.q_norm, c.head_dim, "qNorm");
    l.k_norm = vector(t.k_norm, c.head_dim, "kNorm");
    if (t.q_bias || t.k_bias || t.v_bias) {
      l.qkv_bias.resize(static_cast<size_t>(c.q_dim() + 2 * c.kv_dim()));
      const auto place = [&](const std::optional<FileTensor>& bias, int64_t n, int64_t at, const char* name) {
        const std::vector<float> values = vector(bias, n, name);
        std::copy(values.begin(), values.end(), l.qkv_bias.begin() + at);
      };
      place(t.q_bias, c.q_dim(), 0, "qBias");
      place(t.k_bias, c.kv_dim(), c.q_dim(), "kBias");
      place(t.v_bias, c.kv_dim(), c.q_dim() + c.kv_dim(), "vBias");
    }
    return l;
  }

  void fill_rope() {
    const int64_t half = config_.head_dim / 2;
    weights_.rope_cos.resize(static_cast<size_t>(config_.context * half));
    weights_.rope_sin.resize(weights_.rope_cos.size());
    for (int64_t position = 0; position < config_.context; ++position) {
      for (int64_t j = 0; j < half; ++j) {
        // The angle is a float32 product, as in the models' own code; at long positions the rounding is
        // visible.
        const float angle = static_cast<float>(position) * config_.rope_inv_freq[static_cast<size_t>(j)];
        const auto at = static_cast<size_t>(position * half + j);
        weights_.rope_cos[at] = static_cast<float>(std::cos(angle)) * config_.rope_attention_scale;
        weights_.rope_sin[at] = static_cast<float>(std::sin(angle)) * config_.rope_attention_scale;
      }
    }
  }

  const ModelDescriptor& descriptor_;
  const ModelConfig& config_;
  Weights weights_;
  std::string prefix_;
};

}  // namespace

Weights open_weights(const ModelDescriptor& descriptor) { return Opener(descriptor).open(); }

}  // namespace lorikeet::cpu
