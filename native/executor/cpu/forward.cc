#include "forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

namespace lorikeet::cpu {

Forward::Forward(const Weights& weights, const Ops& ops, KvCache& kv, const AdapterPages& pages,
                 Threads& threads)
    : weights_(weights), config_(weights.config), ops_(ops), kv_(kv), pages_(pages), threads_(threads) {}

void Forward::run(const StepPlan& plan) {
  lay_out(plan);

  // embed
  ops_.embed(x_.data(), weights_.embed, plan.tokens.data(), rows_);

  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    attention_block(layer);
    ffn_block(layer);
  }

  // final norm, of the rows that need logits
  const auto wanted = static_cast<int64_t>(plan.logit_rows.size());
  wanted_.resize(static_cast<size_t>(wanted * config_.hidden));
  for (int64_t i = 0; i < wanted; ++i) {
    ops_.rms_norm(wanted_.data() + i * config_.hidden,
                  x_.data() + plan.logit_rows[static_cast<size_t>(i)].row * config_.hidden,
                  weights_.norm.data(), config_.rms_eps, 1, config_.hidden);
  }
}

std::span<const float> Forward::logits(int64_t begin, int64_t end) {
  const int64_t rows = end - begin;
  logits_.resize(static_cast<size_t>(kLogitRows * config_.vocab));
  const float* x = wanted_.data() + begin * config_.hidden;
  threads_.split(config_.vocab, rows * config_.hidden, [&](int64_t from, int64_t to, int) {
    ops_.linear(logits_.data(), config_.vocab, x, weights_.head, rows, from, to);
  });
  return {logits_.data(), static_cast<size_t>(rows * config_.vocab)};
}

void Forward::attention_block(int64_t layer) {
  const Layer& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t q_dim = config_.q_dim(), kv_dim = config_.kv_dim(), head_dim = config_.head_dim;
  const int64_t stride = q_dim + 2 * kv_dim;
  float* q = qkv_.data();
  float* k = q + q_dim;
  float* v = k + kv_dim;

  // norm
  norm(xb_.data(), x_.data(), w.input_norm);

  // qkv
  linear(q, stride, xb_.data(), w.q);
  linear(k, stride, xb_.data(), w.k);
  linear(v, stride, xb_.data(), w.v);
  if (!w.qkv_bias.empty()) ops_.add_bias(qkv_.data(), w.qkv_bias.data(), rows_, stride);
  lora(q, stride, xb_.data(), layer, Module::kQ);
  lora(k, stride, xb_.data(), layer, Module::kK);
  lora(v, stride, xb_.data(), layer, Module::kV);

  // norm of q and k per head
  for (int64_t i = 0; i < rows_; ++i) {
    float* qi = q + i * stride;
    float* ki = k + i * stride;
    if (!w.q_norm.empty()) ops_.rms_norm(qi, qi, w.q_norm.data(), config_.rms_eps, config_.heads, head_dim);
    if (!w.k_norm.empty())
      ops_.rms_norm(ki, ki, w.k_norm.data(), config_.rms_eps, config_.kv_heads, head_dim);
  }

  // rope
  const float* cos = weights_.rope_cos.data();
  const float* sin = weights_.rope_sin.data();
  ops_.rope(q, stride, plan_->positions.data(), cos, sin, rows_, config_.heads, head_dim);
  ops_.rope(k, stride, plan_->positions.data(), cos, sin, rows_, config_.kv_heads, head_dim);

  // attention
  store_kv(layer);
  attend(layer);

  // output, added to the residual
  linear(out_.data(), config_.hidden, attended_.data(), w.o);
  lora(out_.data(), config_.hidden, attended_.data(), layer, Module::kO);
  ops_.add(x_.data(), out_.data(), rows_ * config_.hidden);
}

void Forward::ffn_block(int64_t layer) {
  const Layer& w = weights_.layers[static_cast<size_t>(layer)];
  const int64_t ffn = config_.ffn;

  // norm
  norm(xb_.data(), x_.data(), w.post_attention_norm);

  // gate and up
  linear(gate_.data(), ffn, xb_.data(), w.gate);
  lora(gate_.data(), ffn, xb_.data(), layer, Module::kGate);
  linear(up_.data(), ffn, xb_.data(), w.up);
  lora(up_.data(), ffn, xb_.data(), layer, Module::kUp);
  threads_.split(rows_, ffn * 8, [&](int64_t begin, int64_t end, int) {
    ops_.silu_mul(gate_.data() + begin * ffn, gate_.data() + begin * ffn, up_.data() + begin * ffn,
                  (end - begin) * ffn);
  });

  // down, added to the residual
  linear(out_.data(), config_.hidden, gate_.data(), w.down);
  lora(out_.data(), config_.hidden, gate_.data(), layer, Module::kDown);
  ops_.add(x_.data(), out_.data(), rows_ * config_.hidden);
}

void Forward::norm(float* y, const float* x, const std::vector<float>& weight) {
  const int64_t n = config_.hidden;
  threads_.split(rows_, n, [&](int64_t begin, int64_t end, int) {
    ops_.rms_norm(y + begin * n, x + begin * n, weight.data(), config_.rms_eps, end - begin, n);
  });
}

void Forward::linear(float* y, int64_t y_stride, const float* x, const Matrix& w) {
  threads_.split(w.rows, rows_ * w.cols,
                 [&](int64_t begin, int64_t end, int) { ops_.linear(y, y_stride, x, w, rows_, begin, end); });
}

// y += scale * B A x for the rows of each slot that adapts this projection.
void Forward::lora(float* y, int64_t y_stride, const float* x, int64_t layer, Module module) {
  const int64_t in = module_in(config_, module), out = module_out(config_, module);
  for (const Segment& segment : plan_->segments) {
    const int64_t rank = pages_.rank(segment.slot, layer, module);
    if (rank == 0) continue;
    const int32_t* rows = row_index_.data() + segment.row;
    const float scale = pages_.scale(segment.slot, layer, module);
    for (int64_t i = 0; i < segment.rows; ++i) {
      scales_[static_cast<size_t>(i)] = scale * plan_->scales[static_cast<size_t>(segment.row + i)];
    }
    for (int64_t page = 0; page * kPageRanks < rank; ++page) {
      const Factor factor = pages_.factor(segment.slot, layer, module, page);
      threads_.split(segment.rows, in * factor.ranks, [&](int64_t begin, int64_t end, int) {
        ops_.lora_shrink(h_.data() + begin * kPageRanks, x, rows + begin, scales_.data() + begin, factor.a,
                         factor.ranks, end - begin, in);
      });
      threads_.split(out, segment.rows * factor.ranks, [&](int64_t begin, int64_t end, int) {
        ops_.lora_expand(y, y_stride, h_.data(), rows, factor.b, factor.ranks, segment.rows, begin, end);
      });
    }
  }
}

void Forward::store_kv(int64_t layer) {
  const int64_t head_dim = config_.head_dim, kv_dim = config_.kv_dim();
  const int64_t stride = config_.q_dim() + 2 * kv_dim;
  const size_t head_bytes = static_cast<size_t>(head_dim) * sizeof(float);
  float* keys = kv_.keys(layer);
  float* values = kv_.values(layer);
  for (int64_t i = 0; i < rows_; ++i) {
    const int64_t position = plan_->positions[static_cast<size_t>(i)];
    const int64_t block = blocks_[static_cast<size_t>(i)][static_cast<size_t>(position / kBlockTokens)];
    const float* k = qkv_.data() + i * stride + config_.q_dim();
    for (int64_t head = 0; head < config_.kv_heads; ++head) {
      const int64_t at =
          ((block * config_.kv_heads + head) * kBlockTokens + position % kBlockTokens) * head_dim;
      std::memcpy(keys + at, k + head * head_dim, head_bytes);
      std::memcpy(values + at, k + kv_dim + head * head_dim, head_bytes);
    }
  }
}

// Split over rows and heads together, so that one long row uses all threads too.
void Forward::attend(int64_t layer) {
  const int64_t heads = config_.heads, head_dim = config_.head_dim;
  const int64_t stride = config_.q_dim() + 2 * config_.kv_dim();
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  threads_.split(rows_ * heads, 2 * context_max_ * head_dim, [&](int64_t begin, int64_t end, int worker) {
    float* scores = scores_.data() + worker * context_max_;
    for (int64_t row = begin / heads; row * heads < end; ++row) {
      const int64_t first = std::max<int64_t>(begin - row * heads, 0);
      const int64_t last = std::min(end - row * heads, heads);
      ops_.attention(attended_.data() + row * config_.q_dim(), qkv_.data() + row * stride, kv_.keys(layer),
                     kv_.values(layer), blocks_[static_cast<size_t>(row)],
                     plan_->positions[static_cast<size_t>(row)] + 1, heads, config_.kv_heads, head_dim, scale,
                     first, last, scores);
    }
  });
}

void Forward::lay_out(const StepPlan& plan) {
  plan_ = &plan;
  rows_ = plan.rows();
  context_max_ = 0;
  blocks_.clear();
  for (const SequenceRows& sequence : plan.sequences) {
    blocks_.resize(static_cast<size_t>(sequence.row + sequence.rows), sequence.blocks.data());
    context_max_ = std::max(context_max_, sequence.position + sequence.rows);
  }
  row_index_.resize(static_cast<size_t>(rows_));
  std::iota(row_index_.begin(), row_index_.end(), 0);
  const auto size = [&](std::vector<float>& buffer, int64_t cols) {
    if (buffer.size() < static_cast<size_t>(rows_ * cols)) buffer.resize(static_cast<size_t>(rows_ * cols));
  };
  for (std::vector<float>* buffer : {&x_, &xb_, &out_}) size(*buffer, config_.hidden);
  size(qkv_, config_.q_dim() + 2 * config_.kv_dim());
  size(attended_, config_.q_dim());
  size(gate_, config_.ffn);
  size(up_, config_.ffn);
  size(h_, kPageRanks);
  size(scales_, 1);
  scores_.resize(std::max(scores_.size(), static_cast<size_t>(threads_.count() * context_max_)));
}

}  // namespace lorikeet::cpu
