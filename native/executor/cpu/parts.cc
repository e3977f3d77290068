// The parts of a forward, each for a range of rows or of outputs: what the threads do between two meetings.
#include <algorithm>
#include <cmath>

#include "forward.h"

namespace lorikeet::cpu {

// The embedding's A needs no product: a token's column of it is looked up.
void Forward::embed(const RowRange& range) const {
  ops_.embed(x_.floats(range.row), x_.stride(), weights_.embed, plan_->tokens.data() + range.row, range.rows);
  for (const Shrink& job : shrinks_[place_of(0, Group::kEmbed)]) {
    const int64_t first = std::max(job.range.row, range.row);
    const int64_t rows = std::min(job.range.row + job.range.rows, range.row + range.rows) - first;
    if (rows <= 0) continue;
    ops_.look_up(hidden(job.module, job.page, first), plan_->tokens.data() + first, rows,
                 pages_.scale(job.slot, 0, job.module), plan_->scales.data() + first,
                 pages_.factor(job.slot, 0, job.module, job.page).a);
  }
  add_delta(x_.floats(range.row), x_.stride(), 0, Module::kEmbed, 0, panels_for(config_.hidden), range,
            plan_->segments);
}

void Forward::norm(Worker& worker, const std::vector<float>& weight) {
  share(worker, Phase::kNorm, plan_->rows(), kRowGrain, [&](int64_t begin, int64_t end) {
    ops_.norm(normed_.at(begin), normed_.stride(), x_.floats(begin), x_.stride(), weight.data(),
              config_.rms_eps, end - begin, config_.hidden);
  });
}

// h = scale A x for the rows of each slot that adapts a module of the group.
void Forward::shrink(Worker& worker, Group group, int64_t layer, const RowBuffer& x) {
  const std::vector<Shrink>& jobs = shrinks_[place_of(layer, group)];
  if (jobs.empty()) return;
  share(worker, Phase::kShrink, static_cast<int64_t>(jobs.size()), 1, [&](int64_t i, int64_t) {
    const auto& [slot, module, page, range] = jobs[static_cast<size_t>(i)];
    ops_.shrink(hidden(module, page, range.row), x.rows(range.row, range.rows),
                pages_.scale(slot, layer, module), plan_->scales.data() + range.row,
                pages_.factor(slot, layer, module, page).a);
  });
}

// y = W x (+ bias) + B h for all rows, outputs of panels [begin, end); y begins with them.
void Forward::project(float* y, int64_t y_stride, const RowBuffer& x, int64_t layer, Module module,
                      int64_t begin, int64_t end) const {
  const Projection& projection = weights_.layers[static_cast<size_t>(layer)].of(module);
  const int64_t rows = plan_->rows(), cols = projection.w.cols;
  const int64_t columns = rows > kRowPanel && ops_.columns > 0 ? ops_.columns : cols;
  for (int64_t from = 0; from < cols; from += columns) {
    for (int64_t row = 0; row < rows; row += kRowPanel) {
      ops_.product(y + row * y_stride, y_stride, x.rows(row, std::min(kRowPanel, rows - row)), projection.w,
                   {begin, end, from, std::min(from + columns, cols)});
    }
  }
  if (!projection.bias.empty()) {
    ops_.add_bias(y, y_stride, projection.bias.data() + begin * kPanelOuts, rows, (end - begin) * kPanelOuts);
  }
  add_delta(y, y_stride, layer, module, begin, end, {0, rows, 0, nullptr}, plan_->segments);
}

// y += B h, for rows with an adapter.
void Forward::add_delta(float* y, int64_t y_stride, int64_t layer, Module module, int64_t begin, int64_t end,
                        const RowRange& range, const std::vector<Segment>& segments) const {
  for (const Segment& segment : segments) {
    const int64_t first = std::max(segment.row, range.row);
    const int64_t rows = std::min(segment.row + segment.rows, range.row + range.rows) - first;
    if (rows <= 0) continue;
    for (int64_t page = 0; page < pages_for(pages_.rank(segment.slot, layer, module)); ++page) {
      ops_.expand(y + (first - range.row) * y_stride, y_stride, hidden(module, page, first), rows,
                  pages_.factor(segment.slot, layer, module, page).b, begin, end);
    }
  }
}

void Forward::project_into_residual(Worker& worker, Phase phase, const RowBuffer& x, int64_t layer,
                                    Module module) {
  const int64_t panels = weights_.layers[static_cast<size_t>(layer)].of(module).w.panels;
  share(worker, phase, panels, grain_, [&](int64_t begin, int64_t end) {
    const int64_t stride = (end - begin) * kPanelOuts + kPanelOuts, first = begin * kPanelOuts;
    float* y = scratch_.floats(worker.index());
    project(y, stride, x, layer, module, begin, end);
    ops_.add(x_.floats(0, first), x_.stride(), y, stride, plan_->rows(),
             std::min(end * kPanelOuts, config_.hidden) - first);
  });
}

void Forward::rope_and_store(int64_t layer, const RowRange& range) const {
  const Layer& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t head_dim = config_.head_dim;
  for (int64_t i = 0; i < range.rows; ++i) {
    const int64_t position = range.position + i;
    float* q = qkv_.floats(range.row + i);
    float* k = q + k_at_;
    const float* v = q + v_at_;
    if (!w.q_norm.empty()) ops_.norm_heads(q, w.q_norm.data(), config_.rms_eps, config_.heads, head_dim);
    if (!w.k_norm.empty()) ops_.norm_heads(k, w.k_norm.data(), config_.rms_eps, config_.kv_heads, head_dim);
    const float* cos = weights_.rope.cos.data() + position * (head_dim / 2);
    const float* sin = weights_.rope.sin.data() + position * (head_dim / 2);
    ops_.rope(q, cos, sin, config_.heads, head_dim);
    ops_.rope(k, cos, sin, config_.kv_heads, head_dim);
    kv_.store(layer, range.blocks, position, k, v);
  }
}

// One unit of query heads, which share a kv head.
void Forward::attend(int64_t layer, const RowRange& range, int64_t unit, int worker) const {
  const int64_t kv_head = unit / units_per_kv_head_, group = config_.heads / config_.kv_heads;
  const int64_t in_group = unit % units_per_kv_head_ * unit_heads_;
  const int64_t column = (kv_head * group + in_group) * config_.head_dim;
  Attention a;
  a.q = qkv_.floats(range.row, column);
  a.q_stride = qkv_.stride();
  a.rows = range.rows;
  a.heads = std::min(unit_heads_, group - in_group);
  a.head_dim = config_.head_dim;
  a.position = range.position;
  a.blocks = range.blocks;
  a.keys = kv_.keys(layer, kv_head);
  a.values = kv_.values(layer, kv_head);
  a.block_elements = kv_.block_elements();
  a.scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  a.out = attended_.at(range.row, column);
  a.out_stride = attended_.stride();
  a.scratch = scratch_.floats(worker);
  ops_.attention(a);
}

}  // namespace lorikeet::cpu
