// Where everything lies in the device's memory: plain arithmetic, done once at the start.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "../../modules.h"
#include "../api.h"
#include "kernels/layout.h"

namespace lorikeet::cuda {

constexpr int64_t kAlign = 256;
constexpr int64_t padded(int64_t cols) { return round_up(cols, kColumnStep); }

// A region of memory that is taken piece by piece.
class Region {
 public:
  // The offset of `bytes` bytes.
  int64_t take(int64_t bytes) {
    const int64_t at = bytes_;
    bytes_ += round_up(bytes, kAlign);
    return at;
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

inline ModelConfig config_of(const ModelShape& m) {
  ModelConfig c;
  c.layers = m.layers;
  c.hidden = m.hidden;
  c.heads = m.heads;
  c.kv_heads = m.kv_heads;
  c.head_dim = m.head_dim;
  c.ffn = m.ffn;
  c.vocab = m.vocab;
  c.context = m.context;
  c.rms_eps = m.rms_eps;
  return c;
}
inline int64_t qkv_dim(const ModelConfig& c) { return c.q_dim() + 2 * c.kv_dim(); }
// What attend() is compiled for.
constexpr int64_t head_stride(int64_t head_dim) { return head_dim <= 64 ? 64 : 128; }
constexpr int64_t kHeadDimMaxCuda = 128;

struct WeightMap {
  struct Layer {
    int64_t qkv, o, gate_up, down, input_norm, post_attention_norm, bias, q_norm, k_norm;
  };
  int64_t embed, head, norm, cos, sin;
  int64_t first_layer, layer_bytes;
  Layer in_layer;
  int64_t bytes;

  WeightMap(const ModelConfig& m, bool has_tied_head) {
    const int64_t half = m.head_dim / 2;
    Region all, of_layer;
    embed = all.take(m.vocab * padded(m.hidden) * 2);
    head = has_tied_head ? embed : all.take(m.vocab * padded(m.hidden) * 2);
    norm = all.take(m.hidden * 4);
    cos = all.take(m.context * half * 4);
    sin = all.take(m.context * half * 4);
    in_layer.qkv = of_layer.take(qkv_dim(m) * padded(m.hidden) * 2);
    in_layer.o = of_layer.take(m.hidden * padded(m.q_dim()) * 2);
    in_layer.gate_up = of_layer.take(2 * m.ffn * padded(m.hidden) * 2);
    in_layer.down = of_layer.take(m.hidden * padded(m.ffn) * 2);
    in_layer.input_norm = of_layer.take(m.hidden * 4);
    in_layer.post_attention_norm = of_layer.take(m.hidden * 4);
    in_layer.bias = of_layer.take(qkv_dim(m) * 4);
    in_layer.q_norm = of_layer.take(m.head_dim * 4);
    in_layer.k_norm = of_layer.take(m.head_dim * 4);
    layer_bytes = of_layer.bytes();
    first_layer = all.take(layer_bytes * m.layers);
    bytes = all.bytes();
  }
  int64_t of(WeightKind kind, int64_t layer) const {
    const int64_t base = first_layer + layer * layer_bytes;
    switch (kind) {
      case WeightKind::kEmbed: return embed;
      case WeightKind::kHead: return head;
      case WeightKind::kNorm: return norm;
      case WeightKind::kQkv: return base + in_layer.qkv;
      case WeightKind::kO: return base + in_layer.o;
      case WeightKind::kGateUp: return base + in_layer.gate_up;
      case WeightKind::kDown: return base + in_layer.down;
      case WeightKind::kInputNorm: return base + in_layer.input_norm;
      case WeightKind::kPostAttentionNorm: return base + in_layer.post_attention_norm;
      case WeightKind::kQkvBias: return base + in_layer.bias;
      case WeightKind::kQNorm: return base + in_layer.q_norm;
      default: return base + in_layer.k_norm;
    }
  }
};

// Pages of a group, one after the other: [A of its 1st module | A of its 2nd .. | B of its 1st ..], all bf16.
struct PageMap {
  std::array<int64_t, kModules> a{}, b{};  // offsets in bytes within a page of the module's group
  std::array<int64_t, kGroups> base{}, page_bytes{}, pages{};
  int64_t bytes = 0;

  PageMap(const ModelConfig& m, int64_t slots, int64_t pages_max) {
    std::array<Region, kGroups> used;
    const auto in_group = [&](Module module) -> Region& {
      return used[static_cast<size_t>(group_of(module))];
    };
    for (int i = 0; i < kModules; ++i) {
      const auto module = static_cast<Module>(i);
      a[static_cast<size_t>(i)] = in_group(module).take(kPageRanks * padded(module_in(m, module)) * 2);
    }
    for (int i = 0; i < kModules; ++i) {
      const auto module = static_cast<Module>(i);
      b[static_cast<size_t>(i)] = in_group(module).take(module_out(m, module) * kPageRanks * 2);
    }
    Region all;
    for (size_t g = 0; g < kGroups; ++g) {
      page_bytes[g] = used[g].bytes();
      pages[g] = slots * layers_of(static_cast<Group>(g), m.layers) * pages_max;
      base[g] = all.take(pages[g] * page_bytes[g]);
    }
    bytes = all.bytes();
  }
  int64_t page(Group group, int64_t id) const {
    return base[static_cast<size_t>(group)] + id * page_bytes[static_cast<size_t>(group)];
  }
};

}  // namespace lorikeet::cuda
