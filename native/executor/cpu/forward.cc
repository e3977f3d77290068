#include "forward.h"

#include <algorithm>

namespace lorikeet::cpu {

void Forward::run(const StepPlan& plan, StepResult& result) {
  lay_out(plan);
  result.assign(plan.logit_rows.size(), {});
  phase_began_ = std::chrono::steady_clock::now();
  team_.run([&](Worker& worker) {
    // embed
    share(worker, Phase::kEmbed, plan.rows(), kRowGrain,
          [&](int64_t begin, int64_t end) { embed({begin, end - begin, 0, nullptr}); });

    for (int64_t layer = 0; layer < config_.layers; ++layer) {
      attention_block(worker, layer);
      ffn_block(worker, layer);
    }

    choose(worker, result);
  });
}

void Forward::attention_block(Worker& worker, int64_t layer) {
  const Layer& w = weights_.layers[static_cast<size_t>(layer)];

  // norm
  norm(worker, w.input_norm);

  // qkv
  shrink(worker, Group::kQkv, layer, normed_);
  share(worker, Phase::kQkv, qkv_end_ / kPanelOuts, grain_, [&](int64_t begin, int64_t end) {
    for (const auto& [module, at] :
         {std::pair{Module::kQ, int64_t{0}}, {Module::kK, k_at_}, {Module::kV, v_at_}}) {
      const int64_t first = at / kPanelOuts;
      const int64_t from = std::max(begin - first, int64_t{0}),
                    to = std::min(end - first, w.of(module).w.panels);
      if (from < to) {
        project(qkv_.floats(0, at + from * kPanelOuts), qkv_.stride(), normed_, layer, module, from, to);
      }
    }
  });

  // norm of q and k per head, rope, keys and values into the cache
  share(worker, Phase::kRope, static_cast<int64_t>(block_rows_.size()), 1,
        [&](int64_t i, int64_t) { rope_and_store(layer, block_rows_[static_cast<size_t>(i)]); });

  // attention
  const int64_t units = config_.kv_heads * units_per_kv_head_;
  share(worker, Phase::kAttention, static_cast<int64_t>(query_rows_.size()) * units, 1,
        [&](int64_t i, int64_t) {
          attend(layer, query_rows_[static_cast<size_t>(i / units)], i % units, worker.index());
        });

  // output, added to the residual
  shrink(worker, Group::kO, layer, attended_);
  project_into_residual(worker, Phase::kO, attended_, layer, Module::kO);
}

void Forward::ffn_block(Worker& worker, int64_t layer) {
  const Layer& w = weights_.layers[static_cast<size_t>(layer)];

  // norm
  norm(worker, w.post_attention_norm);

  // gate and up
  shrink(worker, Group::kGateUp, layer, normed_);
  share(worker, Phase::kGateUp, w.of(Module::kGate).w.panels, grain_, [&](int64_t begin, int64_t end) {
    const int64_t stride = 2 * (end - begin) * kPanelOuts + kPanelOuts;
    float* gate = scratch_.floats(worker.index());
    float* up = gate + (end - begin) * kPanelOuts;
    const int64_t first = begin * kPanelOuts;
    project(gate, stride, normed_, layer, Module::kGate, begin, end);
    project(up, stride, normed_, layer, Module::kUp, begin, end);
    ops_.silu_mul(acted_.at(0, first), acted_.stride(), gate, up, stride, plan_->rows(),
                  std::min(end * kPanelOuts, config_.ffn) - first);
  });

  // down, added to the residual
  shrink(worker, Group::kDown, layer, acted_);
  project_into_residual(worker, Phase::kDown, acted_, layer, Module::kDown);
}

// Logits of the rows that need them, and what is chosen from them.
void Forward::choose(Worker& worker, StepResult& result) {
  const auto wanted = static_cast<int64_t>(result.size());
  const auto row_at = [&](int64_t i) -> const LogitRow& { return plan_->logit_rows[static_cast<size_t>(i)]; };
  for (int64_t first = 0; first < wanted; first += kRowPanel) {
    const int64_t rows = std::min(kRowPanel, wanted - first);

    // final norm
    share(worker, Phase::kNorm, rows, kRowGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        ops_.norm(normed_.at(i), normed_.stride(), x_.floats(row_at(first + i).row), x_.stride(),
                  weights_.norm.data(), config_.rms_eps, 1, config_.hidden);
      }
    });

    // head
    const std::vector<Shrink>& jobs = shrinks_[place_of(0, Group::kHead)];
    if (!jobs.empty()) {
      share(worker, Phase::kShrink, static_cast<int64_t>(jobs.size()), 1, [&](int64_t i, int64_t) {
        const auto& [slot, module, page, range] = jobs[static_cast<size_t>(i)];
        if (range.row < first || range.row >= first + rows) return;
        ops_.shrink(hidden(module, page, range.row), normed_.rows(range.row - first, range.rows),
                    pages_.scale(slot, 0, module), head_scales_.data() + range.row,
                    pages_.factor(slot, 0, module, page).a);
      });
    }
    share(worker, Phase::kHead, weights_.head.panels, grain_, [&](int64_t begin, int64_t end) {
      float* logits = logits_.floats(0, begin * kPanelOuts);
      ops_.product(logits, logits_.stride(), normed_.rows(0, rows), weights_.head,
                   {begin, end, 0, weights_.head.cols});
      add_delta(logits, logits_.stride(), 0, Module::kHead, begin, end, {first, rows, 0, nullptr},
                head_segments_);
    });

    // sample
    share(worker, Phase::kSample, rows, 1, [&](int64_t i, int64_t) {
      const std::span<const float> logits(logits_.floats(i), static_cast<size_t>(config_.vocab));
      result[static_cast<size_t>(first + i)] =
          samplers_[static_cast<size_t>(worker.index())].choose(logits, row_at(first + i));
    });
  }
}

}  // namespace lorikeet::cpu
