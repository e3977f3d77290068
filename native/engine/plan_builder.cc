#include "plan_builder.h"

#include <algorithm>

namespace lorikeet {
namespace {

// The slot that a chunk's rows read; -1 for the base. At scale 0 an adapter changes nothing.
int slot_read_by(const Chunk& chunk) {
  return chunk.sequence->request.lora_scale == 0 ? -1 : chunk.sequence->slot;
}

}  // namespace

const StepPlan& PlanBuilder::build(std::vector<Chunk>& chunks) {
  std::stable_sort(chunks.begin(), chunks.end(),
                   [](const Chunk& a, const Chunk& b) { return slot_read_by(a) < slot_read_by(b); });
  plan_.tokens.clear();
  plan_.positions.clear();
  plan_.scales.clear();
  plan_.sequences.clear();
  plan_.segments.clear();
  plan_.logit_rows.clear();
  chunk_of_logit_row_.clear();
  for (size_t c = 0; c < chunks.size(); ++c) {
    const int64_t first_row = plan_.rows();
    add_rows(chunks[c]);
    add_logit_rows(chunks[c], c, first_row);
  }
  return plan_;
}

void PlanBuilder::add_rows(const Chunk& chunk) {
  const Sequence& sequence = *chunk.sequence;
  const int64_t first_row = plan_.rows();
  for (int64_t position = chunk.begin; position < chunk.begin + chunk.count; ++position) {
    plan_.tokens.push_back(sequence.tokens[static_cast<size_t>(position)]);
    plan_.positions.push_back(static_cast<int32_t>(position));
  }
  plan_.scales.resize(plan_.tokens.size(), sequence.request.lora_scale);
  plan_.sequences.push_back({first_row, chunk.count, chunk.begin, sequence.table.blocks});
  const int slot = slot_read_by(chunk);
  if (slot < 0) return;
  if (plan_.segments.empty() || plan_.segments.back().slot != slot) {
    plan_.segments.push_back({slot, first_row, 0});
  }
  plan_.segments.back().rows += chunk.count;
}

// The last row of a sequence to sample from, and prompt rows to be scored.
void PlanBuilder::add_logit_rows(const Chunk& chunk, size_t index, int64_t first_row) {
  const Sequence& sequence = *chunk.sequence;
  const GenerateRequest& request = sequence.request;
  for (int64_t position = chunk.begin; position < chunk.begin + chunk.count; ++position) {
    // A preempted sequence keeps the scores it has.
    const bool scores = position >= sequence.score_begin() && position < sequence.score_end();
    const bool samples = position + 1 == sequence.length() && request.max_tokens > 0;
    if (!scores && !samples) continue;
    LogitRow wanted;
    wanted.row = first_row + position - chunk.begin;
    if (scores) {
      wanted.scored = sequence.tokens[static_cast<size_t>(position) + 1];
      wanted.top = request.prompt_logprobs;
      if (request.scores_as_drawn()) {
        wanted.sampling = &request.sampling;
        wanted.tokens = std::span(sequence.tokens).first(static_cast<size_t>(position) + 1);
        wanted.prompt_length = request.prompt_logprobs_from;
      }
    } else {
      wanted.top = request.logprobs;
      wanted.sampling = &request.sampling;
      wanted.tokens = sequence.tokens;
      wanted.prompt_length = sequence.prompt_length();
    }
    plan_.logit_rows.push_back(std::move(wanted));
    chunk_of_logit_row_.push_back(index);
  }
}

}  // namespace lorikeet
