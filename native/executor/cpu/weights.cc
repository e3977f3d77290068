#include "weights.h"

#include <algorithm>

namespace lorikeet::cpu {
namespace {

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
      : descriptor_(descriptor),
        config_(descriptor.config),
        stored_(stored),
        weights_{.files = ModelFiles(descriptor)} {}

  Weights open(Team& team, const std::function<void(int64_t, int64_t)>& progress) {
    weights_.config = config_;
    weights_.embed = weights_.files.matrix(descriptor_.embed, config_.vocab, config_.hidden, "embedTokens");
    if (descriptor_.embed.offset % dtype_bytes(descriptor_.embed.dtype) != 0) {
      const auto* data = static_cast<const std::byte*>(weights_.embed.data);
      weights_.embed_copy.assign(data, data + descriptor_.embed.bytes);
      weights_.embed.data = weights_.embed_copy.data();
    }
    panels(weights_.head, weights_.files.matrix(descriptor_.head, config_.vocab, config_.hidden, "lmHead"));
    weights_.norm = weights_.files.vector(descriptor_.norm, config_.hidden, "norm");
    weights_.layers.resize(descriptor_.layers.size());
    for (size_t i = 0; i < descriptor_.layers.size(); ++i) {
      read_layer(weights_.layers[i], descriptor_.layers[i], "layers[" + std::to_string(i) + "].");
    }
    weights_.rope = rope_table(config_);
    pack_all(team, progress);
    return std::move(weights_);
  }

 private:
  void panels(Panels& to, const Matrix& from) {
    to.dtype = from.dtype == Dtype::kBF16 ? Dtype::kBF16 : stored_;
    to.panels = panels_for(from.rows);
    to.cols = round_up(from.cols, kColumnStep);
    packings_.push_back({from, &to, packed_bytes_});
    packed_bytes_ += panel_bytes(to);
  }

  void read_layer(Layer& l, const LayerTensors& t, const std::string& prefix) {
    const ModelConfig& c = config_;
    const ModelFiles& files = weights_.files;
    l.input_norm = files.vector(t.input_norm, c.hidden, prefix + "inputNorm");
    l.post_attention_norm = files.vector(t.post_attention_norm, c.hidden, prefix + "postAttentionNorm");
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      if (!is_in_layers(group_of(module))) continue;
      const ProjectionTensors tensors = tensors_of(t, module);
      Projection& projection = l.projections[static_cast<size_t>(m)];
      const int64_t outs = module_out(c, module);
      panels(projection.w, files.matrix(tensors.weight, outs, module_in(c, module), prefix + tensors.name));
      if (tensors.bias == nullptr) continue;
      projection.bias = files.vector(*tensors.bias, outs, prefix + tensors.bias_name);
      if (!projection.bias.empty()) projection.bias.resize(static_cast<size_t>(round_up(outs, kPanelOuts)));
    }
    l.q_norm = files.vector(t.q_norm, c.head_dim, prefix + "qNorm");
    l.k_norm = files.vector(t.k_norm, c.head_dim, prefix + "kNorm");
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
    weights_.files.let_go();
  }

  const ModelDescriptor& descriptor_;
  const ModelConfig& config_;
  const Dtype stored_;
  Weights weights_;
  std::vector<Packing> packings_;
  size_t packed_bytes_ = 0;
};

}  // namespace

Weights open_weights(const ModelDescriptor& descriptor, Dtype stored, Team& team,
                     const std::function<void(int64_t, int64_t)>& progress) {
  return Opener(descriptor, stored).open(team, progress);
}

}  // namespace lorikeet::cpu
