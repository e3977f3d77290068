#include "weights.h"

#include <algorithm>
#include <cmath>

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

// A matrix on its way into panels.
struct Packing {
  Matrix from;
  Panels* to;
  size_t offset;  // into Weights::panels
};

size_t panel_bytes(const Panels& panels) {
  return static_cast<size_t>(panels.panels * kPanelOuts * panels.cols * dtype_bytes(panels.dtype));
}

class Opener {
 public:
  Opener(const ModelDescriptor& descriptor, Dtype stored)
      : descriptor_(descriptor), config_(descriptor.config), stored_(stored) {}

  Weights open(Team& team, const std::function<void(int64_t, int64_t)>& progress) {
    check_config();
    for (const std::string& path : descriptor_.files) weights_.files.push_back(MappedMemory::file(path));
    weights_.config = config_;
    weights_.embed = matrix(descriptor_.embed, {config_.vocab, config_.hidden}, "embedTokens");
    if (descriptor_.embed.offset % dtype_bytes(descriptor_.embed.dtype) != 0) {
      const auto* data = static_cast<const std::byte*>(weights_.embed.data);
      weights_.embed_copy.assign(data, data + descriptor_.embed.bytes);
      weights_.embed.data = weights_.embed_copy.data();
    }
    panels(weights_.head, descriptor_.head, {config_.vocab, config_.hidden}, "lmHead");
    weights_.norm = vector(descriptor_.norm, config_.hidden, "norm");
    weights_.layers.resize(descriptor_.layers.size());
    for (size_t i = 0; i < descriptor_.layers.size(); ++i) {
      prefix_ = "layers[" + std::to_string(i) + "].";
      read_layer(weights_.layers[i], descriptor_.layers[i]);
    }
    fill_rope();
    pack_all(team, progress);
    return std::move(weights_);
  }

 private:
  void check_config() const {
    const ModelConfig& c = config_;
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
    return {bytes(tensor, shape, name), tensor.dtype, shape[0], shape[1], shape[1]};
  }

  void panels(Panels& to, const FileTensor& tensor, const Shape& shape, const std::string& name) {
    const Matrix from = matrix(tensor, shape, name);
    to.dtype = from.dtype == Dtype::kBF16 ? Dtype::kBF16 : stored_;
    to.panels = panels_for(from.rows);
    to.cols = round_up(from.cols, kColumnStep);
    packings_.push_back({from, &to, packed_bytes_});
    packed_bytes_ += panel_bytes(to);
  }

  std::vector<float> vector(const FileTensor& tensor, int64_t n, const std::string& name) {
    std::vector<float> values(static_cast<size_t>(n));
    widen(values.data(), bytes(tensor, {n}, name), tensor.dtype, n);
    return values;
  }

  std::vector<float> vector(const std::optional<FileTensor>& tensor, int64_t n, const std::string& name) {
    return tensor ? vector(*tensor, n, name) : std::vector<float>();
  }

  void read_layer(Layer& l, const LayerTensors& t) {
    const ModelConfig& c = config_;
    l.input_norm = vector(t.input_norm, c.hidden, "inputNorm");
    l.post_attention_norm = vector(t.post_attention_norm, c.hidden, "postAttentionNorm");
    projection(l, Module::kQ, t.q, "qProj");
    projection(l, Module::kK, t.k, "kProj");
    projection(l, Module::kV, t.v, "vProj");
    projection(l, Module::kO, t.o, "oProj");
    projection(l, Module::kGate, t.gate, "gateProj");
    projection(l, Module::kUp, t.up, "upProj");
    projection(l, Module::kDown, t.down, "downProj");
    bias(l, Module::kQ, t.q_bias, "qBias");
    bias(l, Module::kK, t.k_bias, "kBias");
    bias(l, Module::kV, t.v_bias, "vBias");
    l.q_norm = vector(t.q_norm, c.head_dim, "qNorm");
    l.k_norm = vector(t.k_norm, c.head_dim, "kNorm");
  }

  void projection(Layer& l, Module module, const FileTensor& tensor, const char* name) {
    panels(l.projections[static_cast<size_t>(module)].w, tensor,
           {module_out(config_, module), module_in(config_, module)}, name);
  }

  void bias(Layer& l, Module module, const std::optional<FileTensor>& tensor, const char* name) {
    std::vector<float>& values = l.projections[static_cast<size_t>(module)].bias;
    values = vector(tensor, module_out(config_, module), name);
    values.resize(static_cast<size_t>(round_up(static_cast<int64_t>(values.size()), kPanelOuts)));
  }

  // In jobs of about a megabyte, shared out over the team.
  void pack_all(Team& team, const std::function<void(int64_t, int64_t)>& progress) {
    struct Job {
      const Packing* packing;
      int64_t begin, end;
    };
    weights_.panels = MappedMemory::anonymous(packed_bytes_);
    std::vector<Job> jobs;
    for (const Packing& packing : packings_) {
      packing.to->data = weights_.panels.data() + packing.offset;
      const int64_t bytes = static_cast<int64_t>(panel_bytes(*packing.to)) / packing.to->panels;
      const int64_t step = std::max<int64_t>((1 << 20) / bytes, 1);
      for (int64_t begin = 0; begin < packing.to->panels; begin += step) {
        jobs.push_back({&packing, begin, std::min(begin + step, packing.to->panels)});
      }
    }
    team.run([&](Team::Worker& worker) {
      worker.share(static_cast<int64_t>(jobs.size()), 1, [&](int64_t index, int64_t) {
        const auto& [packing, begin, end] = jobs[static_cast<size_t>(index)];
        pack(*packing->to, weights_.panels.data() + packing->offset, packing->from, begin, end);
        if (progress && worker.index() == 0) {
          progress(static_cast<int64_t>(packed_bytes_) * index / static_cast<int64_t>(jobs.size()),
                   static_cast<int64_t>(packed_bytes_));
        }
      });
    });
    for (const MappedMemory& file : weights_.files) file.let_go();
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
  const Dtype stored_;
  Weights weights_;
  std::string prefix_;
  std::vector<Packing> packings_;
  size_t packed_bytes_ = 0;
};

}  // namespace

Weights open_weights(const ModelDescriptor& descriptor, Dtype stored, Team& team,
                     const std::function<void(int64_t, int64_t)>& progress) {
  return Opener(descriptor, stored).open(team, progress);
}

}  // namespace lorikeet::cpu
