// One engine step's arithmetic: the Llama forward over a batch of rows, one row per token.
#pragma once

#include <span>
#include <vector>

#include "../plan.h"
#include "adapter_pages.h"
#include "kernels/ops.h"
#include "kv_cache.h"
#include "threads.h"
#include "weights.h"

namespace lorikeet::cpu {

class Forward {
 public:
  Forward(const Weights& weights, const Ops& ops, KvCache& kv, const AdapterPages& pages, Threads& threads);

  // Computes the rows' tokens and writes their keys and values.
  void run(const StepPlan& plan);

  // Logits of plan.logit_rows[begin .. end), at most kLogitRows of them: [end - begin, vocab]. Valid until
  // the next call.
  std::span<const float> logits(int64_t begin, int64_t end);
  static constexpr int64_t kLogitRows = 32;

 private:
  void lay_out(const StepPlan& plan);
  void attention_block(int64_t layer);
  void ffn_block(int64_t layer);
  void store_kv(int64_t layer);
  void attend(int64_t layer);

  void norm(float* y, const float* x, const std::vector<float>& weight);
  void linear(float* y, int64_t y_stride, const float* x, const Matrix& w);
  void lora(float* y, int64_t y_stride, const float* x, int64_t layer, Module module);

  const Weights& weights_;
  const ModelConfig& config_;
  const Ops& ops_;
  KvCache& kv_;
  const AdapterPages& pages_;
  Threads& threads_;

  const StepPlan* plan_ = nullptr;
  int64_t rows_ = 0;
  int64_t context_max_ = 0;
  std::vector<const int32_t*> blocks_;  // [rows]: the sequences' block tables
  std::vector<int32_t> row_index_;      // 0, 1, 2, ...
  std::vector<float> scales_;           // [rows]

  std::vector<float> x_;          // [rows, hidden]
  std::vector<float> xb_;         // [rows, hidden], normed
  std::vector<float> qkv_;        // [rows, q_dim + 2 * kv_dim]
  std::vector<float> attended_;   // [rows, q_dim]
  std::vector<float> gate_, up_;  // [rows, ffn]
  std::vector<float> out_;        // [rows, hidden], of o and down
  std::vector<float> h_;          // [rows, kPageRanks]
  std::vector<float> scores_;     // [threads, context]
  std::vector<float> wanted_;     // [logit_rows, hidden]
  std::vector<float> logits_;     // [kLogitRows, vocab]
};

}  // namespace lorikeet::cpu
