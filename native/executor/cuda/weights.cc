#include "weights.h"

#include <cstring>

#include "kernels/layout.h"
#include "library.h"
#include "pinned_writer.h"

namespace lorikeet::cuda {
namespace {

class Uploader {
 public:
  Uploader(const Api& api, void* device, const std::function<void(int64_t, int64_t)>& progress, int64_t total)
      : api_(api), device_(device), progress_(progress), total_(total) {}

  // At row `first` of the kind's matrix.
  void matrix(WeightKind kind, int64_t layer, int64_t first, const Matrix& from) {
    const int64_t cols = round_up(from.cols, kColumnStep), row_bytes = cols * 2;
    PinnedWriter writer = writer_of(kind, layer);
    for (int64_t row = 0, rows = 0; row < from.rows; row += rows) {
      int64_t bytes =
          std::min<int64_t>(from.rows - row, std::max<int64_t>(kStepBytes / row_bytes, 1)) * row_bytes;
      std::byte* to = writer.at((first + row) * row_bytes, bytes);
      rows = bytes / row_bytes;
      write_bf16(to, from, row, row + rows, cols);
      done_ += rows * row_bytes;
      if (progress_) progress_(std::min(done_, total_), total_);
    }
    writer.flush();
  }

  // At element `first` of the kind's vector.
  void vector(WeightKind kind, int64_t layer, int64_t first, const std::vector<float>& values) {
    if (values.empty()) return;
    PinnedWriter writer = writer_of(kind, layer);
    auto bytes = static_cast<int64_t>(values.size() * sizeof(float));
    std::memcpy(writer.at(first * 4, bytes), values.data(), static_cast<size_t>(bytes));
    writer.flush();
  }

 private:
  static constexpr int64_t kStepBytes = 1 << 20;

  PinnedWriter writer_of(WeightKind kind, int64_t layer) const {
    return {api_, device_, [this, kind, layer](int64_t offset, int64_t bytes, Failure* failure) {
              return api_.copy_weight(device_, kind, static_cast<int32_t>(layer), offset, bytes, failure);
            }};
  }

  const Api& api_;
  void* const device_;
  const std::function<void(int64_t, int64_t)>& progress_;
  const int64_t total_;
  int64_t done_ = 0;
};

// Where a projection goes.
struct Place {
  WeightKind kind;
  int64_t first;  // row
};
Place place_of(const ModelConfig& c, Module module) {
  switch (module) {
    case Module::kQ: return {WeightKind::kQkv, 0};
    case Module::kK: return {WeightKind::kQkv, c.q_dim()};
    case Module::kV: return {WeightKind::kQkv, c.q_dim() + c.kv_dim()};
    case Module::kO: return {WeightKind::kO, 0};
    case Module::kGate: return {WeightKind::kGateUp, 0};
    case Module::kUp: return {WeightKind::kGateUp, c.ffn};
    default: return {WeightKind::kDown, 0};
  }
}

int64_t matrix_bytes(const ModelDescriptor& descriptor) {
  const ModelConfig& c = descriptor.config;
  int64_t in_layer = 0;
  for (int m = 0; m < kModules; ++m) {
    const auto module = static_cast<Module>(m);
    if (!is_in_layers(group_of(module))) continue;
    in_layer += module_out(c, module) * round_up(module_in(c, module), kColumnStep) * 2;
  }
  const int64_t table = c.vocab * round_up(c.hidden, kColumnStep) * 2;
  return in_layer * c.layers + table * (has_tied_head(descriptor) ? 1 : 2);
}

}  // namespace

bool has_tied_head(const ModelDescriptor& descriptor) {
  return descriptor.embed.file == descriptor.head.file && descriptor.embed.offset == descriptor.head.offset;
}

bool write_bf16(std::byte* to, const Matrix& from, int64_t begin, int64_t end, int64_t cols) {
  const auto* data = static_cast<const std::byte*>(from.data);
  bool is_exact = true;
  for (int64_t row = begin; row < end; ++row, to += cols * 2) {
    const std::byte* values = data + row * from.stride * dtype_bytes(from.dtype);
    if (from.dtype == Dtype::kBF16) {
      std::memcpy(to, values, static_cast<size_t>(from.cols * 2));
    } else {
      for (int64_t i = 0; i < from.cols; ++i) {
        const float value = widen(values, from.dtype, i);
        const uint16_t bits = narrow_bf16(value);
        is_exact &= widen_bf16(bits) == value;
        std::memcpy(to + i * 2, &bits, sizeof bits);
      }
    }
    std::memset(to + from.cols * 2, 0, static_cast<size_t>((cols - from.cols) * 2));
  }
  return is_exact;
}

void upload_weights(const ModelDescriptor& descriptor, const ModelFiles& files, const Api& api, void* device,
                    const std::function<void(int64_t, int64_t)>& progress) {
  const ModelConfig& c = descriptor.config;
  Uploader uploader(api, device, progress, matrix_bytes(descriptor));
  uploader.matrix(WeightKind::kEmbed, 0, 0, files.matrix(descriptor.embed, c.vocab, c.hidden, "embedTokens"));
  const Matrix head = files.matrix(descriptor.head, c.vocab, c.hidden, "lmHead");
  if (!has_tied_head(descriptor)) uploader.matrix(WeightKind::kHead, 0, 0, head);
  uploader.vector(WeightKind::kNorm, 0, 0, files.vector(descriptor.norm, c.hidden, "norm"));
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const LayerTensors& t = descriptor.layers[static_cast<size_t>(layer)];
    const std::string prefix = "layers[" + std::to_string(layer) + "].";
    uploader.vector(WeightKind::kInputNorm, layer, 0,
                    files.vector(t.input_norm, c.hidden, prefix + "inputNorm"));
    uploader.vector(WeightKind::kPostAttentionNorm, layer, 0,
                    files.vector(t.post_attention_norm, c.hidden, prefix + "postAttentionNorm"));
    uploader.vector(WeightKind::kQNorm, layer, 0, files.vector(t.q_norm, c.head_dim, prefix + "qNorm"));
    uploader.vector(WeightKind::kKNorm, layer, 0, files.vector(t.k_norm, c.head_dim, prefix + "kNorm"));
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      if (!is_in_layers(group_of(module))) continue;
      const ProjectionTensors tensors = tensors_of(t, module);
      const auto [kind, first] = place_of(c, module);
      const int64_t outs = module_out(c, module);
      uploader.matrix(kind, layer, first,
                      files.matrix(tensors.weight, outs, module_in(c, module), prefix + tensors.name));
      if (tensors.bias == nullptr) continue;
      uploader.vector(WeightKind::kQkvBias, layer, first,
                      files.vector(*tensors.bias, outs, prefix + tensors.bias_name));
    }
  }
  Failure failure{};
  check(api.finish(device, &failure), failure);
  files.let_go();
}

}  // namespace lorikeet::cuda
