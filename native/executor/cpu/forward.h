// One engine step's arithmetic: the Llama forward over a batch of rows, one row per token. All threads of a
// team run it together; `share` is a loop that they share out, and its end is where all have come.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <vector>

#include "../executor.h"
#include "../sampler.h"
#include "adapter_pages.h"
#include "kernels/ops.h"
#include "kv_cache.h"
#include "row_buffer.h"
#include "team.h"
#include "weights.h"

namespace lorikeet::cpu {

// What a step's time goes into.
enum class Phase : uint8_t {
  kEmbed,
  kNorm,
  kShrink,
  kQkv,
  kRope,
  kAttention,
  kO,
  kGateUp,
  kDown,
  kHead,
  kSample
};
constexpr std::array kPhaseNames = {"embed", "norm",    "shrink", "qkv",  "rope",  "attention",
                                    "o",     "gate_up", "down",   "head", "sample"};

class Forward {
 public:
  struct Sizes {
    int64_t rows = 0;  // of a step, at most
    int64_t max_rank = 0;
  };
  Forward(const Weights& weights, const Ops& ops, const KvCache& kv, const AdapterPages& pages, Team& team,
          Sizes sizes);

  // Computes the rows' tokens, writes their keys and values, and fills `result` beside plan.logit_rows.
  void run(const StepPlan& plan, StepResult& result);

  int64_t buffer_bytes() const;
  std::vector<PhaseTime> times() const;

 private:
  using Worker = Team::Worker;
  // Rows of the residual that one thread takes at a time.
  static constexpr int64_t kRowGrain = 4;
  // Rows that meet a share of the weights together: they and the weights stay in the second-level cache.
  static constexpr int64_t kRowPanel = 64;
  // Rows [row, row + rows) of the step, of one sequence from `position` on where that matters.
  struct RowRange {
    int64_t row = 0;
    int64_t rows = 0;
    int64_t position = 0;
    const int32_t* blocks = nullptr;
  };
  // The product of one page's A with the rows of its slot.
  struct Shrink {
    int slot = 0;
    Module module = Module::kQ;
    int64_t page = 0;
    RowRange range;
  };

  void lay_out(const StepPlan& plan);
  void lay_out_head(const StepPlan& plan);
  void lay_out_shrinks(const Segment& segment, int64_t layers, bool (*wanted)(Group));
  void attention_block(Worker& worker, int64_t layer);
  void ffn_block(Worker& worker, int64_t layer);
  void choose(Worker& worker, StepResult& result);

  template <typename Fn>
  void share(Worker& worker, Phase phase, int64_t n, int64_t grain, Fn&& fn);
  void embed(const RowRange& range) const;
  void norm(Worker& worker, const std::vector<float>& weight);
  void shrink(Worker& worker, Group group, int64_t layer, const RowBuffer& x);
  void project(float* y, int64_t y_stride, const RowBuffer& x, int64_t layer, Module module, int64_t begin,
               int64_t end) const;
  void add_delta(float* y, int64_t y_stride, int64_t layer, Module module, int64_t begin, int64_t end,
                 const RowRange& range, const std::vector<Segment>& segments) const;
  void project_into_residual(Worker& worker, Phase phase, const RowBuffer& x, int64_t layer, Module module);
  void rope_and_store(int64_t layer, const RowRange& range) const;
  void attend(int64_t layer, const RowRange& range, int64_t unit, int worker) const;
  std::byte* hidden(Module module, int64_t page, int64_t row) const;

  const Weights& weights_;
  const ModelConfig& config_;
  const Ops& ops_;
  const KvCache& kv_;
  const AdapterPages& pages_;
  Team& team_;
  std::vector<Sampler> samplers_;  // of each thread

  // Where k, v and the end are in a row of qkv_: whole panels each.
  int64_t k_at_ = 0, v_at_ = 0, qkv_end_ = 0;
  int64_t pages_max_ = 0;  // of a module in a layer
  // Query heads of one call of attention: all of a kv head, as far as they fit.
  int64_t unit_heads_ = 0;
  int64_t units_per_kv_head_ = 0;

  const StepPlan* plan_ = nullptr;
  std::vector<RowRange> block_rows_;          // rows whose keys and values go into one block
  std::vector<RowRange> query_rows_;          // rows of one call of attention
  std::vector<std::vector<Shrink>> shrinks_;  // [layers, kGroups]; those of the head are of rows of logits
  std::vector<Segment> head_segments_;        // of rows of logits
  std::vector<float> head_scales_;            // of each row of logits
  int64_t grain_ = 1;                         // panels of a share of a product

  RowBuffer x_;          // [rows, hidden], float32: the residual
  RowBuffer normed_;     // [rows, hidden]
  RowBuffer qkv_;        // [rows, q | k | v], float32
  RowBuffer attended_;   // [rows, q_dim]
  RowBuffer acted_;      // [rows, ffn]
  MappedMemory hidden_;  // [modules of a group, pages, rows] of kHiddenBytes
  RowBuffer scratch_;    // [threads, ..], float32
  RowBuffer logits_;     // [kRowPanel, vocab], float32

  std::array<std::atomic<int64_t>, kPhaseNames.size()> nanoseconds_{};
  std::chrono::steady_clock::time_point phase_began_;
};

// As Worker::share; the first thread's clock says what the phase took.
template <typename Fn>
void Forward::share(Worker& worker, Phase phase, int64_t n, int64_t grain, Fn&& fn) {
  worker.share(n, grain, fn);
  if (worker.index() != 0) return;
  const auto now = std::chrono::steady_clock::now();
  nanoseconds_[static_cast<size_t>(phase)].fetch_add((now - phase_began_).count(), std::memory_order_relaxed);
  phase_began_ = now;
}

}  // namespace lorikeet::cpu
