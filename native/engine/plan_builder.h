// From the scheduler's chunks to the plan of a step, and from its result back to sequences.
#pragma once

#include <vector>

#include "executor/plan.h"
#include "scheduler.h"

namespace lorikeet {

class PlanBuilder {
 public:
  // Valid until the next call and while the chunks' sequences do not change. Brings the chunks into the order
  // of the plan's rows.
  const StepPlan& build(std::vector<Chunk>& chunks);

  // The chunk that each of the plan's logit rows belongs to.
  const std::vector<size_t>& chunk_of_logit_row() const { return chunk_of_logit_row_; }

 private:
  void add_rows(const Chunk& chunk);
  void add_logit_rows(const Chunk& chunk, size_t index, int64_t first_row);

  StepPlan plan_;
  std::vector<size_t> chunk_of_logit_row_;
};

}  // namespace lorikeet
