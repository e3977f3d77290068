// The launches of one step, in the order of the CPU's forward (cpu/forward.cc).
#pragma once

#include <array>

#include "kernels/attend.cuh"
#include "kernels/choose.cuh"
#include "kernels/norm.cuh"
#include "kernels/silu.cuh"
#include "kernels/wide.cuh"
#include "memory.h"
#include "runtime.h"

namespace lorikeet::cuda {

// Rows from here on take the tiles of many rows.
constexpr int32_t kFewRows = 64;

struct Model {
  ModelConfig config;
  ModelShape shape;
  WeightMap map;
  const std::byte* weights;

  template <typename T>
  const T* at(WeightKind kind, int64_t layer = 0) const {
    return reinterpret_cast<const T*>(weights + map.of(kind, layer));
  }
  const float* cos() const { return reinterpret_cast<const float*>(weights + map.cos); }
  const float* sin() const { return reinterpret_cast<const float*>(weights + map.sin); }
};

// What a step reads that the host wrote, in one block of memory that both have alike.
struct StepInputs {
  int32_t *tokens, *positions, *slots, *table_of;  // [rows]
  float* scales;                                   // [rows]
  std::array<Job*, kGroups> jobs;
  int32_t* job_counts;  // [kGroups]
  int32_t* tables;      // last: as long as the sequences' tables are
};
struct HeadInputs {
  int32_t *rows, *slots;  // [kLogitRows]
  float* scales;
  Wanted* wanted;
  Job* jobs;
  int32_t* job_count;
};

// All in device memory, at addresses that stay.
struct Buffers {
  StepInputs step;
  HeadInputs head;
  float *x, *y, *h, *partial;
  Bf16 *normed, *q, *attended, *acted;
  uint32_t* arrived;
  Bf16* head_normed;  // [kLogitRows, hidden]
  float *head_h, *logits;
  Chosen* chosen;
  Bf16 *keys, *values;          // [layers, blocks, kv_heads, ..]
  int64_t cache_layer;          // elements of one layer of either
  int64_t partial_rows_splits;  // room of `partial`
  int32_t h_stride;
  SlotTable table;
};

// What a graph is captured for: sizes of grids. What is fewer ends at once.
struct StepShape {
  int32_t rows = 0;
  int32_t splits = 0;                   // of the longest context
  std::array<int32_t, kGroups> jobs{};  // 0 in all: no adapter code
  bool has_adapters() const { return jobs != std::array<int32_t, kGroups>{}; }
  auto operator<=>(const StepShape&) const = default;
};

class Step {
 public:
  Step(const Model& model, const Buffers& buffers, const Stream& stream, bool overlaps)
      : m_(model), c_(model.config), b_(buffers), stream_(stream), overlaps_(overlaps) {}

  // Of a run.
  static int64_t launches(const ModelConfig& config) { return 1 + 9 * config.layers; }

  void run(const StepShape& shape) const {
    // embed, norm
    const Expand none = {b_.table, shape.has_adapters() ? b_.step.slots : nullptr, b_.h, b_.h_stride, 0};
    start(embed_norm, grid(shape.rows), kNormThreads, kNormShared,
          EmbedArgs{b_.x, b_.normed, m_.at<Bf16>(WeightKind::kEmbed), b_.step.tokens,
                    norm_of(WeightKind::kInputNorm, 0), none, b_.step.scales,
                    static_cast<int32_t>(padded(c_.vocab))});
    for (int32_t layer = 0; layer < c_.layers; ++layer) {
      attention_block(shape, layer);
      ffn_block(shape, layer);
    }
  }

  // One product alone, in all layers in turn, so that its weights are in no cache.
  void measure(Measured what, int32_t rows) const {
    StepShape shape;
    shape.rows = rows;
    for (int32_t layer = 0; layer < c_.layers; ++layer) {
      switch (what) {
        case Measured::kQkv: product(qkv(shape, layer)); break;
        case Measured::kO: product(o(shape, layer)); break;
        case Measured::kGateUp: product(gate_up(shape, layer)); break;
        case Measured::kDown: product(down(shape, layer)); break;
        default: return product(head(std::min(rows, kLogitRows), 0));
      }
    }
  }

  // Logits of the rows that need them, and what is chosen from them. `jobs`: of adapters' heads.
  void choose_rows(int32_t rows, int32_t jobs) const {
    // final norm
    start(gather_norm, grid(rows), kNormThreads, kNormShared,
          GatherNormArgs{b_.head_normed, b_.x, b_.head.rows, norm_of(WeightKind::kNorm, 0)});

    // head
    product(head(rows, jobs));
    if (jobs > 0) {
      const Expand expand = {b_.table, b_.head.slots, b_.head_h, head_h_stride(), 0};
      start(add_head, grid(blocks(c_.vocab, 256), rows), 256, 0,
            HeadArgs{b_.logits, int32(c_.vocab), expand});
    }

    // sample
    start(choose, grid(rows), kChooseThreads, kChooseShared,
          ChooseArgs{b_.chosen, b_.logits, b_.head.wanted, int32(c_.vocab)});
  }

 private:
  static int32_t int32(int64_t n) { return static_cast<int32_t>(n); }
  static int64_t blocks(int64_t n, int64_t each) { return (n + each - 1) / each; }
  static dim3 grid(int64_t x, int64_t y = 1, int64_t z = 1) {
    return dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
  }
  int32_t head_h_stride() const { return b_.table.pages_max * int32(kPageRanks); }

  template <typename Arguments>
  void start(void (*kernel)(Arguments), dim3 grid, int threads, size_t shared,
             const Arguments& arguments) const {
    launch({grid, dim3(static_cast<unsigned>(threads)), shared, stream_, overlaps_}, kernel, arguments);
  }

  void attention_block(const StepShape& shape, int32_t layer) const {
    const Expand expand = expand_of(shape, layer);
    const Cache cache = cache_of(layer);

    // qkv
    product(qkv(shape, layer));

    // norm of q and k per head, rope, keys and values into the cache
    const bool has_bias = m_.shape.has_bias, has_norm = m_.shape.has_qk_norm;
    start(qkv_finish, grid(blocks(c_.heads + 2 * c_.kv_heads, kQkvWarps), shape.rows), kQkvWarps * 32, 0,
          QkvArgs{b_.q, b_.y, has_bias ? m_.at<float>(WeightKind::kQkvBias, layer) : nullptr,
                  has_norm ? m_.at<float>(WeightKind::kQNorm, layer) : nullptr,
                  has_norm ? m_.at<float>(WeightKind::kKNorm, layer) : nullptr, m_.cos(), m_.sin(),
                  c_.rms_eps, cache, expand});

    // attention
    attention(shape, cache);

    // output, added to the residual; norm
    product(o(shape, layer));
    start(add_norm, grid(shape.rows), kNormThreads, kNormShared,
          AddNormArgs{b_.x, b_.normed, b_.y, norm_of(WeightKind::kPostAttentionNorm, layer), Module::kO,
                      expand});
  }

  void ffn_block(const StepShape& shape, int32_t layer) const {
    const Expand expand = expand_of(shape, layer);

    // gate and up
    product(gate_up(shape, layer));
    start(silu_mul, grid(blocks(c_.ffn, kSiluThreads), shape.rows), kSiluThreads, 0,
          SiluArgs{b_.acted, b_.y, int32(c_.ffn), int32(padded(c_.ffn)), expand});

    // down, added to the residual; norm of the next layer
    product(down(shape, layer));
    const bool is_last = layer + 1 == c_.layers;
    start(add_norm, grid(shape.rows), kNormThreads, kNormShared,
          AddNormArgs{b_.x, b_.normed, b_.y,
                      norm_of(is_last ? WeightKind::kNorm : WeightKind::kInputNorm, is_last ? 0 : layer + 1),
                      Module::kDown, expand});
  }

  // As many rows at a time as there is room for their splits.
  void attention(const StepShape& shape, const Cache& all) const {
    const int64_t stride = all.head_stride, units = blocks(c_.heads / c_.kv_heads, kAttendHeads);
    const int64_t step =
        std::min<int64_t>(shape.splits == 1 ? shape.rows : b_.partial_rows_splits / shape.splits, 65535);
    for (int64_t row = 0; row < shape.rows; row += step) {
      Cache cache = all;
      cache.positions += row;
      cache.table_of += row;
      const AttendArgs arguments = {b_.attended + row * padded(c_.q_dim()),
                                    b_.q + row * c_.heads * stride,
                                    b_.partial,
                                    b_.arrived,
                                    shape.splits,
                                    int32(padded(c_.q_dim())),
                                    int32(units),
                                    1.0f / sqrtf(static_cast<float>(c_.head_dim)),
                                    cache};
      const dim3 cut = grid(shape.splits, c_.kv_heads * units, std::min(step, shape.rows - row));
      if (stride == 64) {
        start(attend<64>, cut, kAttendWarps * 32, kAttendShared<64>, arguments);
      } else {
        start(attend<128>, cut, kAttendWarps * 32, kAttendShared<128>, arguments);
      }
    }
  }

  LinearArgs linear_of(float* y, const Bf16* x, WeightKind kind, int64_t outs, int64_t cols, Group group,
                       const StepShape& shape, int32_t layer) const {
    const auto g = static_cast<size_t>(group);
    return {y,
            x,
            m_.at<Bf16>(kind, layer),
            shape.rows,
            int32(outs),
            int32(padded(cols)),
            {shape.jobs[g], layer, b_.step.jobs[g], b_.step.job_counts + g, b_.table, b_.step.scales, b_.h,
             b_.h_stride}};
  }

  LinearArgs qkv(const StepShape& shape, int32_t layer) const {
    return linear_of(b_.y, b_.normed, WeightKind::kQkv, qkv_dim(c_), c_.hidden, Group::kQkv, shape, layer);
  }
  LinearArgs o(const StepShape& shape, int32_t layer) const {
    return linear_of(b_.y, b_.attended, WeightKind::kO, c_.hidden, c_.q_dim(), Group::kO, shape, layer);
  }
  LinearArgs gate_up(const StepShape& shape, int32_t layer) const {
    return linear_of(b_.y, b_.normed, WeightKind::kGateUp, 2 * c_.ffn, c_.hidden, Group::kGateUp, shape,
                     layer);
  }
  LinearArgs down(const StepShape& shape, int32_t layer) const {
    return linear_of(b_.y, b_.acted, WeightKind::kDown, c_.hidden, c_.ffn, Group::kDown, shape, layer);
  }
  LinearArgs head(int32_t rows, int32_t jobs) const {
    const Shrink shrink = {jobs,           0,         b_.head.jobs,   b_.head.job_count, b_.table,
                           b_.head.scales, b_.head_h, head_h_stride()};
    return {b_.logits, b_.head_normed,  m_.at<Bf16>(WeightKind::kHead),
            rows,      int32(c_.vocab), int32(padded(c_.hidden)),
            shrink};
  }

  // Tiles follow the rows; a row's bits do not.
  void product(const LinearArgs& p) const {
    if (p.rows <= 8) return few<1, 1>(p);
    if (p.rows <= 16) return few<1, 2>(p);
    if (p.rows <= 32) return few<2, 4>(p);
    if (p.rows <= kFewRows) return few<2, 8>(p);
    if (p.shrink.blocks > 0) {
      LinearArgs jobs = p;
      jobs.outs = 0;
      few<2, 8>(jobs);
    }
    start(linear_wide, grid(blocks(p.outs, kWideOuts), blocks(p.rows, kWideTokens)), 256, kWideShared, p);
  }
  template <int kRows, int kTokens>
  void few(const LinearArgs& p) const {
    start(linear<kRows, kTokens>, grid(p.shrink.blocks + blocks(p.outs, 16 * kRows)), kWarps * 32,
          sizeof(float) * kWarps * 16 * kRows * 8 * kTokens, p);
  }

  Expand expand_of(const StepShape& shape, int32_t layer) const {
    return {b_.table, shape.has_adapters() ? b_.step.slots : nullptr, b_.h, b_.h_stride, layer};
  }
  Norm norm_of(WeightKind kind, int64_t layer) const {
    return {m_.at<float>(kind, layer), int32(c_.hidden), int32(padded(c_.hidden)), c_.rms_eps};
  }
  Cache cache_of(int32_t layer) const {
    return {b_.keys + layer * b_.cache_layer,
            b_.values + layer * b_.cache_layer,
            b_.step.tables,
            b_.step.table_of,
            b_.step.positions,
            int32(c_.heads),
            int32(c_.kv_heads),
            int32(c_.head_dim),
            int32(head_stride(c_.head_dim))};
  }

  const Model& m_;
  const ModelConfig& c_;
  const Buffers& b_;
  const Stream& stream_;
  const bool overlaps_;
};

}  // namespace lorikeet::cuda
