// What a short stay on a GPU should yield: shares of the device's own limits, measured in the same run.
// Weights of Llama 3.1 8B's shape are made here, so nothing is carried but this program and the library.
//   device_bench LIBRARY [--shape 8b|tiny]     prints one JSON object; exits 77 where no device answers
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "executor/cuda/api.h"
#include "executor/cuda/device/memory.h"

namespace {

using namespace lorikeet;
using namespace lorikeet::cuda;
using Clock = std::chrono::steady_clock;

constexpr int kNoDevice = 77;
constexpr int32_t kRank = 16;

struct Scale {
  ModelShape model;
  int32_t adapters;
  int32_t prefill;  // rows of a step
  std::vector<int32_t> rows, contexts;
  int rounds;
};
const Scale k8b = {
    {32, 4096, 32, 8, 128, 14336, 128256, 4096, 1e-5f, 0, 0, 0}, 32, 2048, {1, 8, 32, 64}, {128, 2048}, 40};
const Scale kTiny = {{2, 128, 4, 2, 64, 256, 512, 256, 1e-5f, 0, 0, 0}, 4, 80, {1, 4}, {16}, 2};

const Api* api = nullptr;
void* device = nullptr;

void check(int result, const Failure& failure) {
  if (result == 0) return;
  std::fprintf(stderr, "%s\n", failure.message);
  std::exit(1);
}
template <typename Fn>
void call(Fn&& fn) {
  Failure failure{};
  check(fn(&failure), failure);
}
double seconds_since(Clock::time_point began) {
  return std::chrono::duration<double>(Clock::now() - began).count();
}
double at_share(std::vector<double> values, double share) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
}

// A block of random bf16 that copies repeat: not zeros, which take less power and so less time.
const std::vector<uint16_t>& noise() {
  static const std::vector<uint16_t> block = [] {
    std::vector<uint16_t> values(8 << 20);
    uint64_t state = 1;
    for (uint16_t& value : values) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      const float number = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f * 0.03f;
      value = narrow_bf16(number);
    }
    return values;
  }();
  return block;
}
template <typename Copy>
void copy_noise(int64_t bytes, Copy&& copy) {
  for (int64_t done = 0, chunk = 0; done < bytes; done += chunk) {
    chunk = std::min<int64_t>(bytes - done, static_cast<int64_t>(noise().size()) * 2);
    void* memory = nullptr;
    call([&](Failure* f) { return api->reserve(device, &chunk, &memory, f); });
    std::memcpy(memory, noise().data(), static_cast<size_t>(chunk));
    call([&](Failure* f) { return copy(done, chunk, f); });
  }
}

class Bench {
 public:
  explicit Bench(const Scale& scale) : s_(scale), c_(config_of(scale.model)), pages_(c_, scale.adapters, 1) {}

  void run() {
    open();
    fill();
    for (int32_t slot = 0; slot < s_.adapters; ++slot) stage(slot);
    std::printf("{\n  \"device\": \"%s\",\n  \"graphs\": %s,\n  \"dependentLaunch\": %s,\n", opened_.name,
                flag("LORIKEET_CUDA_GRAPHS"), flag("LORIKEET_CUDA_PDL"));
    measure_copy();
    measure_products();
    measure_prefill();
    measure_steps();
    measure_staging();
    std::printf("}\n");
  }

 private:
  static const char* flag(const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && std::string(value) == "0" ? "false" : "true";
  }
  int64_t longest() const { return *std::max_element(s_.contexts.begin(), s_.contexts.end()) + 1; }
  int64_t token_bytes() const { return 2 * c_.layers * c_.kv_heads * c_.head_dim * 2; }
  int64_t adapter_bytes() const {
    int64_t elements = 0;
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      if (is_in_layers(group_of(module)))
        elements += kRank * (module_in(c_, module) + module_out(c_, module));
    }
    return elements * c_.layers * 2;
  }
  // That a step of few rows reads.
  int64_t weight_bytes() const {
    int64_t in_layer = qkv_dim(c_) * c_.hidden + c_.hidden * c_.q_dim() + 3 * c_.ffn * c_.hidden;
    return (in_layer * c_.layers + c_.vocab * c_.hidden) * 2;
  }

  void open() {
    cos_.assign(static_cast<size_t>(c_.context * c_.head_dim / 2), 0.8f);
    sin_.assign(cos_.size(), 0.6f);
    const int64_t rows = std::max<int64_t>(*std::max_element(s_.rows.begin(), s_.rows.end()), 1);
    blocks_per_row_ = blocks_for(std::max<int64_t>(longest(), s_.prefill));
    const int64_t block_bytes = 2 * c_.layers * c_.kv_heads * kBlockTokens * head_stride(c_.head_dim) * 2;
    const OpenRequest request{s_.model,
                              s_.adapters,
                              1,
                              s_.prefill,
                              static_cast<int32_t>(rows),
                              rows * blocks_per_row_ * block_bytes,
                              cos_.data(),
                              sin_.data()};
    call([&](Failure* f) { return api->open(&request, &opened_, f); });
    device = opened_.device;
  }

  void fill() {
    const auto matrix = [&](WeightKind kind, int32_t layer, int64_t elements) {
      copy_noise(elements * 2, [&](int64_t offset, int64_t bytes, Failure* f) {
        return api->copy_weight(device, kind, layer, offset, bytes, f);
      });
    };
    matrix(WeightKind::kEmbed, 0, c_.vocab * padded(c_.hidden));
    matrix(WeightKind::kHead, 0, c_.vocab * padded(c_.hidden));
    ones(WeightKind::kNorm, 0);
    for (int32_t layer = 0; layer < c_.layers; ++layer) {
      matrix(WeightKind::kQkv, layer, qkv_dim(c_) * padded(c_.hidden));
      matrix(WeightKind::kO, layer, c_.hidden * padded(c_.q_dim()));
      matrix(WeightKind::kGateUp, layer, 2 * c_.ffn * padded(c_.hidden));
      matrix(WeightKind::kDown, layer, c_.hidden * padded(c_.ffn));
      ones(WeightKind::kInputNorm, layer);
      ones(WeightKind::kPostAttentionNorm, layer);
    }
    call([&](Failure* f) { return api->finish(device, f); });
  }
  void ones(WeightKind kind, int32_t layer) {
    int64_t bytes = c_.hidden * 4;
    void* memory = nullptr;
    call([&](Failure* f) { return api->reserve(device, &bytes, &memory, f); });
    std::fill_n(static_cast<float*>(memory), c_.hidden, 1.0f);
    call([&](Failure* f) { return api->copy_weight(device, kind, layer, 0, bytes, f); });
  }

  // One page of each group of each layer, as an adapter of rank 16 on all modules of the layers.
  void stage(int32_t slot) {
    const auto places = static_cast<size_t>(c_.layers * kModules);
    std::vector<StagedPage> pages(places);
    std::vector<int32_t> ranks(places);
    std::vector<float> scales(places, 1.0f);
    for (int64_t layer = 0; layer < c_.layers; ++layer) {
      for (int g = 0; g < kGroups; ++g) {
        const auto group = static_cast<Group>(g);
        if (!is_in_layers(group)) continue;
        const int64_t at = pages_.page(group, slot * c_.layers + layer);
        copy_noise(pages_.page_bytes[static_cast<size_t>(g)], [&](int64_t offset, int64_t bytes, Failure* f) {
          return api->copy_page(device, at + offset, bytes, f);
        });
        for (int m = 0; m < kModules; ++m) {
          if (group_of(static_cast<Module>(m)) != group) continue;
          const auto place = place_of(layer, static_cast<Module>(m));
          pages[place] = {at + pages_.a[static_cast<size_t>(m)], at + pages_.b[static_cast<size_t>(m)]};
          ranks[place] = kRank;
        }
      }
    }
    call([&](Failure* f) {
      return api->copy_slot(device, slot, pages.data(), ranks.data(), scales.data(), f);
    });
    call([&](Failure* f) { return api->finish(device, f); });
  }

  double measure(Measured what, int32_t rows, int32_t count) {
    double seconds = 0;
    call([&](Failure* f) { return api->measure(device, what, rows, count, &seconds, f); });
    return seconds / count;
  }
  void measure_copy() {
    // Read and written: half of the cache each.
    copy_rate_ = static_cast<double>(opened_.kv_bytes) / measure(Measured::kCopy, 0, s_.rounds);
    std::printf("  \"copyGBs\": %.0f,\n", copy_rate_ / 1e9);
  }
  void measure_products() {
    struct Product {
      const char* name;
      Measured what;
      int64_t outs, cols;
    };
    const Product products[] = {{"qkv", Measured::kQkv, qkv_dim(c_), c_.hidden},
                                {"o", Measured::kO, c_.hidden, c_.q_dim()},
                                {"gate_up", Measured::kGateUp, 2 * c_.ffn, c_.hidden},
                                {"down", Measured::kDown, c_.hidden, c_.ffn},
                                {"head", Measured::kHead, c_.vocab, c_.hidden}};
    std::printf("  \"products\": [");
    const char* comma = "";
    for (const Product& p : products) {
      const int64_t times = p.what == Measured::kHead ? 1 : c_.layers;
      for (const int32_t rows : {1, 8, 16, 32, 64, s_.prefill}) {
        if (rows == s_.prefill && p.what == Measured::kHead) continue;
        const double seconds = measure(p.what, rows, s_.rounds) / static_cast<double>(times);
        const double elements = static_cast<double>(p.outs * p.cols);
        std::printf(
            "%s\n    {\"product\": \"%s\", \"rows\": %d, \"us\": %.2f, \"ofCopy\": %.3f, \"tflops\": %.1f}",
            comma, p.name, rows, seconds * 1e6, elements * 2 / seconds / copy_rate_,
            elements * 2 * rows / seconds / 1e12);
        comma = ",";
      }
    }
    std::printf("\n  ],\n");
  }

  // A step of `rows` rows at a context each, or of one sequence from its begin; milliseconds.
  double step(int32_t rows, int32_t distinct, int32_t context, bool is_prefill) {
    std::vector<int32_t> tokens, positions, table_of, tables;
    std::vector<float> scales(static_cast<size_t>(rows), 1.0f);
    std::vector<Run> runs;
    const auto sequences = is_prefill ? 1 : rows;
    for (int32_t s = 0; s < sequences; ++s) {
      for (int64_t b = 0; b < blocks_per_row_; ++b) {
        tables.push_back(static_cast<int32_t>((s * blocks_per_row_ + b) * 4099 % opened_.kv_blocks));
      }
    }
    for (int32_t r = 0; r < rows; ++r) {
      tokens.push_back(r * 1009 % s_.model.vocab);
      positions.push_back(is_prefill ? r : context);
      table_of.push_back(is_prefill ? 0 : r * static_cast<int32_t>(blocks_per_row_));
    }
    for (int32_t d = 0; d < distinct; ++d) {
      const int32_t first = rows * d / distinct, end = rows * (d + 1) / distinct;
      runs.push_back({d, first, end - first});
    }
    const StepRequest request{rows,
                              static_cast<int32_t>(runs.size()),
                              static_cast<int32_t>(tables.size()),
                              tokens.data(),
                              positions.data(),
                              scales.data(),
                              table_of.data(),
                              tables.data(),
                              runs.data()};
    const int32_t logit_rows = is_prefill ? 1 : std::min(rows, kLogitRows);
    std::vector<Wanted> wanted;
    for (int32_t i = 0; i < logit_rows; ++i)
      wanted.push_back({is_prefill ? rows - 1 : i, -1, -1, 0, 0, 1, 0, 0});
    std::vector<Chosen> chosen(wanted.size());
    const ChooseRequest choose{logit_rows, 0, wanted.data(), scales.data(), nullptr};
    const auto began = Clock::now();
    call([&](Failure* f) { return api->step(device, &request, f); });
    call([&](Failure* f) { return api->choose(device, &choose, chosen.data(), f); });
    return seconds_since(began) * 1e3;
  }
  std::vector<double> steps(int count, int32_t rows, int32_t distinct, int32_t context,
                            bool is_prefill = false) {
    std::vector<double> ms;
    for (int i = 0; i < 3; ++i) step(rows, distinct, context, is_prefill);
    for (int i = 0; i < count; ++i) ms.push_back(step(rows, distinct, context, is_prefill));
    return ms;
  }

  void measure_prefill() {
    const double base = at_share(steps(s_.rounds / 2, s_.prefill, 0, 0, true), 0.5);
    const double adapted = at_share(steps(s_.rounds / 2, s_.prefill, 1, 0, true), 0.5);
    std::printf(
        "  \"prefill\": {\"rows\": %d, \"ms\": %.2f, \"withAdapterMs\": %.2f, \"tokensPerSecond\": %.0f, "
        "\"tflops\": %.1f},\n",
        s_.prefill, base, adapted, s_.prefill / base * 1e3,
        static_cast<double>(weight_bytes()) * s_.prefill / base / 1e9);
  }

  void measure_steps() {
    std::printf("  \"steps\": [");
    const char* comma = "";
    for (const int32_t context : s_.contexts) {
      for (const int32_t rows : s_.rows) {
        double base = 0;
        for (const int32_t distinct : {0, 1, 8, 32}) {
          if (distinct > std::min(rows, s_.adapters)) continue;
          const double ms = at_share(steps(s_.rounds, rows, distinct, context), 0.5);
          if (distinct == 0) base = ms;
          const double floor = static_cast<double>(weight_bytes() + distinct * adapter_bytes() +
                                                   rows * int64_t{context} * token_bytes()) /
                               copy_rate_ * 1e3;
          std::printf(
              "%s\n    {\"rows\": %d, \"context\": %d, \"adapters\": %d, \"ms\": %.3f, \"ofBase\": %.3f, "
              "\"ofFloor\": %.3f}",
              comma, rows, context, distinct, ms, ms / base, floor / ms);
          comma = ",";
        }
      }
    }
    std::printf("\n  ],\n");
  }

  // A revision after the other into the last slot, beside steps that do not read it.
  void measure_staging() {
    const int32_t rows = *std::max_element(s_.rows.begin(), s_.rows.end()) / 2;
    const int32_t distinct = std::min(s_.adapters - 1, rows);
    const std::vector<double> quiet = steps(s_.rounds * 5, rows, distinct, s_.contexts.front());
    std::vector<double> pushes;
    std::atomic<bool> stops = false;
    std::thread pusher([&] {
      while (!stops) {
        const auto began = Clock::now();
        stage(s_.adapters - 1);
        pushes.push_back(seconds_since(began) * 1e3);
      }
    });
    const std::vector<double> busy = steps(s_.rounds * 5, rows, distinct, s_.contexts.front());
    stops = true;
    pusher.join();
    std::printf(
        "  \"staging\": {\"megabytes\": %.1f, \"pushes\": %zu, \"pushMsP50\": %.2f, \"pushMsP99\": %.2f, "
        "\"stepMsP50\": %.3f, "
        "\"stepMsP99\": %.3f, \"stepBesidePushesMsP50\": %.3f, \"stepBesidePushesMsP99\": %.3f}\n",
        static_cast<double>(adapter_bytes()) / 1e6, pushes.size(), at_share(pushes, 0.5),
        at_share(pushes, 0.99), at_share(quiet, 0.5), at_share(quiet, 0.99), at_share(busy, 0.5),
        at_share(busy, 0.99));
  }

  const Scale& s_;
  const ModelConfig c_;
  const PageMap pages_;
  std::vector<float> cos_, sin_;
  Opened opened_{};
  int64_t blocks_per_row_ = 0;
  double copy_rate_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: device_bench LIBRARY [--shape 8b|tiny]\n");
    return 2;
  }
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  api = reinterpret_cast<const Api* (*)()>(dlsym(library, kApiSymbol))();
  Failure failure{};
  if (api->probe(&failure) != 0) {
    std::fprintf(stderr, "no GPU answers here: %s\n", failure.message);
    return kNoDevice;
  }
  Bench(argc > 3 && std::string(argv[3]) == "tiny" ? kTiny : k8b).run();
  api->close(device);
  return 0;
}
