// The seam between the engine, which decides, and a device, which computes. An executor owns weights, KV
// cache, pages of adapters, activations and sampling; the engine knows their ids only.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model.h"
#include "plan.h"

namespace lorikeet {

struct ExecutorOptions {
  ModelDescriptor model;
  int64_t slots = 0;
  int64_t max_rank = 0;
  int64_t kv_bytes = 0;
  int64_t max_batch_tokens = 0;  // rows of a step
  int threads = 1;
};

// Fixed from the start on.
struct ExecutorLimits {
  std::string backend;  // what computes, e.g. "avx2"
  int64_t kv_blocks = 0;
  std::array<int64_t, kGroups> pages{};  // of each group
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ExecutorLimits& limits() const = 0;

  // Computes the rows' tokens, writes their keys and values, and fills `result` beside plan.logit_rows.
  // Called by one thread. Throws only where the device failed: then nothing computed before can be trusted.
  virtual void step(const StepPlan& plan, StepResult& result) = 0;

  // Writes a revision into free pages; a step that begins after the return may read it. Called by one thread,
  // also during a step.
  virtual void stage(const StagePlan& plan, std::span<const std::byte> body) = 0;

  // The slot's pages are free now: makes every product with what is left in them NaN. Called while no step
  // reads the slot and nothing is staged into it.
  virtual void poison(int slot) = 0;
};

}  // namespace lorikeet
