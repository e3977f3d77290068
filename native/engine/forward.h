// One engine step's arithmetic: the Llama forward over a batch of rows, one row per token.
#pragma once

#include <span>
#include <vector>

#include "kv_blocks.h"
#include "scheduler.h"
#include "slot_pool.h"
#include "threads.h"
#include "weights.h"

namespace lorikeet {

class Forward {
 public:
  Forward(const Weights& weights, const Ops& ops, KvBlocks& kv, const SlotPool& slots, Threads& threads);

  // Computes the chunks' tokens and writes their keys and values. `logit_rows` are the rows (in the order of
  // the chunks' tokens) whose logits are wanted afterwards.
  void run(const std::vector<Chunk>& chunks, const std::vector<int32_t>& logit_rows);

  // Logits of logit_rows[begin .. end), at most kLogitRows of them: [end - begin, vocab]. Valid until the
  // next call.
  std::span<const float> logits(int64_t begin, int64_t end);
  static constexpr int64_t kLogitRows = 32;

 private:
  // Rows of the batch that share a slot: row_index_[begin .. begin + rows).
  struct Segment {
    int slot = 0;
    int64_t begin = 0;
    int64_t rows = 0;
  };

  void lay_out(const std::vector<Chunk>& chunks);
  void sort_by_slot(const std::vector<Chunk>& chunks);
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
  KvBlocks& kv_;
  const SlotPool& slots_;
  Threads& threads_;

  // The batch: one entry per row.
  int64_t rows_ = 0;
  std::vector<int32_t> tokens_, positions_;
  std::vector<const Sequence*> sequences_;
  int64_t context_max_ = 0;

  std::vector<Segment> segments_;
  std::vector<int32_t> row_index_;
  std::vector<float> request_scales_, scales_;  // beside row_index_

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

}  // namespace lorikeet
