// What a forward prepares before its threads begin: which rows go together, and where they go.
#include <algorithm>

#include "forward.h"

namespace lorikeet::cpu {
namespace {

// Panels of weights of a share: few where rows are few, so that threads end together.
constexpr int64_t kGrainMin = 4, kGrainMax = 16;

int64_t columns(int64_t outs) { return round_up(outs, kPanelOuts); }

// Modules of the largest group.
constexpr int64_t kGroupModules = 3;

int64_t place_in_group(Module module) {
  int64_t place = 0;
  for (int m = 0; m < static_cast<int>(module); ++m)
    place += group_of(static_cast<Module>(m)) == group_of(module);
  return place;
}

}  // namespace

Forward::Forward(const Weights& weights, const Ops& ops, const KvCache& kv, const AdapterPages& pages,
                 Team& team, Sizes sizes)
    : weights_(weights),
      config_(weights.config),
      ops_(ops),
      kv_(kv),
      pages_(pages),
      team_(team),
      k_at_(columns(config_.q_dim())),
      v_at_(k_at_ + columns(config_.kv_dim())),
      qkv_end_(v_at_ + columns(config_.kv_dim())),
      pages_max_(pages_for(sizes.max_rank)),
      unit_heads_(std::min(config_.heads / config_.kv_heads, kAttentionQueries)),
      units_per_kv_head_((config_.heads / config_.kv_heads + unit_heads_ - 1) / unit_heads_),
      shrinks_(static_cast<size_t>(config_.layers * kGroups)),
      x_(sizes.rows, config_.hidden, Dtype::kF32),
      normed_(std::max(sizes.rows, kRowPanel), config_.hidden, ops.x),
      qkv_(sizes.rows, qkv_end_, Dtype::kF32),
      attended_(sizes.rows, config_.q_dim(), ops.x),
      acted_(sizes.rows, config_.ffn, ops.x),
      hidden_(MappedMemory::anonymous(
          static_cast<size_t>((kGroupModules * pages_max_ * sizes.rows + kRowStep) * kHiddenBytes))),
      scratch_(team.count(),
               std::max((2 * kGrainMax + 1) * kPanelOuts * sizes.rows, attention_scratch(config_.head_dim)),
               Dtype::kF32),
      logits_(kRowPanel, config_.vocab, Dtype::kF32) {
  for (int i = 0; i < team.count(); ++i) samplers_.emplace_back(config_.vocab);
}

int64_t Forward::buffer_bytes() const {
  auto sum = static_cast<int64_t>(hidden_.bytes());
  for (const RowBuffer* buffer : {&x_, &normed_, &qkv_, &attended_, &acted_, &scratch_, &logits_}) {
    sum += buffer->bytes();
  }
  return sum;
}

void Forward::lay_out(const StepPlan& plan) {
  plan_ = &plan;
  const auto cut = [](std::vector<RowRange>& into, const RowRange& range, int64_t first, int64_t step) {
    for (int64_t i = 0, rows = first; i < range.rows; i += rows, rows = step) {
      rows = std::min(rows, range.rows - i);
      into.push_back({range.row + i, rows, range.position + i, range.blocks});
    }
  };
  block_rows_.clear();
  query_rows_.clear();
  const int64_t query_rows = std::max<int64_t>(kAttentionQueries / unit_heads_, 1);
  for (const SequenceRows& s : plan.sequences) {
    const RowRange range = {s.row, s.rows, s.position, s.blocks.data()};
    cut(block_rows_, range, kBlockTokens - s.position % kBlockTokens, kBlockTokens);
    cut(query_rows_, range, query_rows, query_rows);
  }
  // At least four shares per thread in the smallest product.
  const int64_t fair = panels_for(config_.hidden) / (4 * team_.count());
  grain_ = std::clamp<int64_t>(std::min(fair, plan.rows() > kRowPanel ? kGrainMax : kGrainMin), 1, kGrainMax);
  for (std::vector<Shrink>& jobs : shrinks_) jobs.clear();
  for (const Segment& segment : plan.segments) {
    lay_out_shrinks(segment, config_.layers, [](Group group) { return group != Group::kHead; });
  }
  lay_out_head(plan);
}

// The head meets rows of logits only: the segments among those.
void Forward::lay_out_head(const StepPlan& plan) {
  head_segments_.clear();
  head_scales_.clear();
  for (const LogitRow& wanted : plan.logit_rows) {
    const auto of = std::find_if(plan.segments.begin(), plan.segments.end(), [&](const Segment& s) {
      return wanted.row >= s.row && wanted.row < s.row + s.rows;
    });
    const auto index = static_cast<int64_t>(head_scales_.size());
    head_scales_.push_back(plan.scales[static_cast<size_t>(wanted.row)]);
    if (of == plan.segments.end() || pages_.rank(of->slot, 0, Module::kHead) == 0) continue;
    if (head_segments_.empty() || head_segments_.back().slot != of->slot)
      head_segments_.push_back({of->slot, index, 0});
    ++head_segments_.back().rows;
  }
  for (const Segment& segment : head_segments_) {
    lay_out_shrinks(segment, 1, [](Group group) { return group == Group::kHead; });
  }
}

// Cut where panels of rows are, so that a job's rows are those of one pass.
void Forward::lay_out_shrinks(const Segment& segment, int64_t layers, bool (*wanted)(Group)) {
  for (int64_t layer = 0; layer < layers; ++layer) {
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      if (!wanted(group_of(module)) || layer >= layers_of(group_of(module), layers)) continue;
      for (int64_t page = 0; page < pages_for(pages_.rank(segment.slot, layer, module)); ++page) {
        for (int64_t row = segment.row, rows = 0; row < segment.row + segment.rows; row += rows) {
          rows = std::min(segment.row + segment.rows, (row / kRowPanel + 1) * kRowPanel) - row;
          shrinks_[place_of(layer, group_of(module))].push_back(
              {segment.slot, module, page, {row, rows, 0, nullptr}});
        }
      }
    }
  }
}

// h of a page: 16 ranks of each row, kHiddenBytes each.
std::byte* Forward::hidden(Module module, int64_t page, int64_t row) const {
  const int64_t plane = place_in_group(module) * pages_max_ + page;
  return hidden_.data() + (plane * plan_->rows() + row) * kHiddenBytes;
}

std::vector<PhaseTime> Forward::times() const {
  std::vector<PhaseTime> times;
  for (size_t i = 0; i < kPhaseNames.size(); ++i) {
    times.push_back(
        {kPhaseNames[i], static_cast<double>(nanoseconds_[i].load(std::memory_order_relaxed)) / 1e6});
  }
  return times;
}

}  // namespace lorikeet::cpu
