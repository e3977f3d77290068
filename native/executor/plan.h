// What the engine asks of an executor, flat: ids and numbers, no memory of the device.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "kernels/layout.h"
#include "modules.h"

namespace lorikeet {

// Raw: of the logits as they are. Processed: of what the token was drawn from, which is after penalties,
// bias, temperature, top_k, top_p and min_p; a greedy token has penalties and bias only.
enum class LogprobsMode { kRaw, kProcessed };

struct SamplingParams {
  double temperature = 0;
  double top_p = 1;
  int64_t top_k = 0;
  double min_p = 0;
  uint64_t seed = 0;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  double repetition_penalty = 1;
  std::vector<std::pair<int32_t, float>> logit_bias;
  LogprobsMode logprobs_mode = LogprobsMode::kRaw;

  bool changes_logits() const {
    return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1 || !logit_bias.empty();
  }
  // Whether log-probabilities are of other numbers than the logits.
  bool changes_logprobs() const {
    const bool cuts = top_k > 0 || top_p < 1 || min_p > 0;
    return logprobs_mode == LogprobsMode::kProcessed &&
           (changes_logits() || (temperature != 0 && (temperature != 1 || cuts)));
  }
};

struct TokenLogprobs {
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;
};

// Consecutive rows of one sequence, at consecutive positions.
struct SequenceRows {
  int64_t row = 0;  // the first
  int64_t rows = 0;
  int64_t position = 0;             // of the first row
  std::span<const int32_t> blocks;  // the sequence's block table
};

// Rows [row, row + rows) that share a slot.
struct Segment {
  int slot = 0;
  int64_t row = 0;
  int64_t rows = 0;
};

// A row whose logits are wanted: to score a given token, or to sample one.
struct LogitRow {
  int64_t row = 0;
  int32_t scored = -1;                       // the token to score; -1: sample
  int64_t top = -1;                          // alternatives to report; -1: no log-probabilities
  const SamplingParams* sampling = nullptr;  // of a row that is sampled, or scored as if it were
  std::span<const int32_t> tokens;           // prompt and answer so far
  int64_t prompt_length = 0;
};

// One engine step: one row per token. Rows of the base come first, then those of each slot together, so that
// a segment is a run of rows. Spans point into the engine's sequences and hold for the step.
struct StepPlan {
  std::vector<int32_t> tokens, positions;  // [rows]
  std::vector<float> scales;               // [rows]: the request's own factor of its adapter's scale
  std::vector<SequenceRows> sequences;
  std::vector<Segment> segments;     // by row; rows of the base, or at scale 0, are in none
  std::vector<LogitRow> logit_rows;  // by row

  int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
};

// Of one LogitRow.
struct RowResult {
  bool finite = true;  // where not, nothing else holds
  int32_t token = -1;
  std::optional<TokenLogprobs> logprobs;
};
using StepResult = std::vector<RowResult>;

// One adapted projection of a revision; offsets into the body. A is [rank, in], B [out, rank].
struct StageModule {
  int64_t layer = 0;
  Module module = Module::kQ;
  int64_t rank = 0;
  float scale = 0;
  int64_t a_offset = 0, b_offset = 0;
  Dtype a_dtype = Dtype::kF32, b_dtype = Dtype::kF32;
};

// Where a revision goes. Page p of a group holds ranks 16 p .. 16 p + 15 of each of its modules.
struct StagePlan {
  int slot = 0;
  std::span<const StageModule> modules;
  std::span<const std::vector<int32_t>> pages;  // [layers, kGroups]: page ids
};

}  // namespace lorikeet
