// Small random models and adapters, all bf16, so that every backend reads the same numbers.
#pragma once

#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "executor/plan.h"

namespace lorikeet::test {

// A small seeded generator of numbers in [-1, 1) (SplitMix64).
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  float number() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<float>(static_cast<int32_t>((z ^ (z >> 31)) >> 32)) * 0x1p-31f;
  }

 private:
  uint64_t state_;
};

struct Shape {
  const char* name;
  int64_t layers, hidden, heads, kv_heads, head_dim, ffn, vocab;
  bool has_bias, has_qk_norm, has_tied_head;
};

// In a file of its own.
class ModelFile {
 public:
  explicit ModelFile(const Shape& s) : path_("/tmp/lorikeet-step-test-" + std::to_string(getpid())) {
    ModelConfig& c = descriptor.config;
    c.layers = s.layers;
    c.hidden = s.hidden;
    c.heads = s.heads;
    c.kv_heads = s.kv_heads;
    c.head_dim = s.head_dim;
    c.ffn = s.ffn;
    c.vocab = s.vocab;
    c.context = 1024;
    c.rms_eps = 1e-5f;
    for (int64_t j = 0; j < s.head_dim / 2; ++j) {
      c.rope_inv_freq.push_back(
          std::pow(10000.0f, -2.0f * static_cast<float>(j) / static_cast<float>(s.head_dim)));
    }
    const auto matrix = [&](int64_t rows, int64_t cols) {
      return tensor({rows, cols}, 2.5f / std::sqrt(static_cast<float>(cols)), 0);
    };
    const auto norm = [&](int64_t n) { return tensor({n}, 0.3f, 1); };
    descriptor.embed = tensor({s.vocab, s.hidden}, 1, 0);
    descriptor.head = s.has_tied_head ? descriptor.embed : matrix(s.vocab, s.hidden);
    descriptor.norm = norm(s.hidden);
    for (int64_t i = 0; i < s.layers; ++i) {
      LayerTensors l;
      l.input_norm = norm(s.hidden);
      l.post_attention_norm = norm(s.hidden);
      l.q = matrix(c.q_dim(), s.hidden);
      l.k = matrix(c.kv_dim(), s.hidden);
      l.v = matrix(c.kv_dim(), s.hidden);
      l.o = matrix(s.hidden, c.q_dim());
      l.gate = matrix(s.ffn, s.hidden);
      l.up = matrix(s.ffn, s.hidden);
      l.down = matrix(s.hidden, s.ffn);
      if (s.has_bias) {
        l.q_bias = tensor({c.q_dim()}, 0.5f, 0);
        l.k_bias = tensor({c.kv_dim()}, 0.5f, 0);
        l.v_bias = tensor({c.kv_dim()}, 0.5f, 0);
      }
      if (s.has_qk_norm) {
        l.q_norm = norm(s.head_dim);
        l.k_norm = norm(s.head_dim);
      }
      descriptor.layers.push_back(l);
    }
    descriptor.files = {path_};
    std::ofstream(path_, std::ios::binary)
        .write(reinterpret_cast<const char*>(data_.data()), static_cast<std::streamsize>(data_.size() * 2));
  }
  ~ModelFile() { unlink(path_.c_str()); }
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;

  ModelDescriptor descriptor;

 private:
  FileTensor tensor(std::vector<int64_t> shape, float scale, float mean) {
    int64_t n = 1;
    for (const int64_t side : shape) n *= side;
    const auto offset = static_cast<int64_t>(data_.size() * 2);
    for (int64_t i = 0; i < n; ++i) data_.push_back(narrow_bf16(mean + scale * random_.number()));
    return {0, offset, n * 2, Dtype::kBF16, std::move(shape)};
  }

  std::string path_;
  Random random_{7};
  std::vector<uint16_t> data_;
};

struct Adapter {
  std::vector<StageModule> modules;
  std::vector<std::byte> body;
};

// `rank_of`: 0 where it adapts nothing.
inline Adapter random_adapter(const ModelConfig& c, uint64_t seed,
                              const std::function<int64_t(int64_t, Module)>& rank_of) {
  Random random(seed);
  Adapter adapter;
  const auto factor = [&](int64_t n, float scale) {
    const auto offset = static_cast<int64_t>(adapter.body.size());
    adapter.body.resize(adapter.body.size() + static_cast<size_t>(n * 2));
    for (int64_t i = 0; i < n; ++i) {
      const uint16_t bits = narrow_bf16(scale * random.number());
      std::memcpy(adapter.body.data() + offset + i * 2, &bits, 2);
    }
    return offset;
  };
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      const int64_t rank = layer < layers_of(group_of(module), c.layers) ? rank_of(layer, module) : 0;
      if (rank == 0) continue;
      StageModule staged{layer, module, rank, 1.5f, 0, 0, Dtype::kBF16, Dtype::kBF16};
      staged.a_offset =
          factor(rank * module_in(c, module), 1 / std::sqrt(static_cast<float>(module_in(c, module))));
      staged.b_offset = factor(rank * module_out(c, module), 0.5f);
      adapter.modules.push_back(staged);
    }
  }
  return adapter;
}

}  // namespace lorikeet::test
