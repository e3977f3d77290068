// The seam between the engine, which decides, and a device, which computes. An executor owns weights, KV
// cache, pages of adapters, activations and sampling; the engine knows their ids only.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model.h"
#include "plan.h"

namespace lorikeet {

// What products read and what is stored; sums and the residual are float32. kAuto: as the model's matrices
// are stored, where the device is fast with that.
enum class Compute : uint8_t { kAuto, kFloat32, kBfloat16 };

struct ExecutorOptions {
  ModelDescriptor model;
  int64_t slots = 0;
  int64_t max_rank = 0;
  int64_t kv_bytes = 0;
  int64_t max_batch = 0;         // sequences of a step
  int64_t max_batch_tokens = 0;  // rows of a step
  int threads = 1;
  Compute compute = Compute::kAuto;
  // Called now and then while weights are loaded, with bytes done and in all.
  std::function<void(int64_t, int64_t)> progress;
};

// Bytes that an executor has taken, or may come to take as they are written.
struct MemoryBytes {
  int64_t weights = 0, kv = 0, pages = 0, activations = 0, graphs = 0;
};

// Fixed from the start on.
struct ExecutorLimits {
  std::string backend;         // what computes, e.g. "avx2"
  Dtype stored = Dtype::kF32;  // of keys, values and adapters' pages
  int64_t kv_blocks = 0;
  std::array<int64_t, kGroups> pages{};  // of each group
  MemoryBytes memory;
};

// What a revision lost on its way into pages.
struct Staged {
  int64_t rounded = 0;  // tensors with values that the pages' type cannot hold exactly
};

// Time of all steps so far that went into one part of them.
struct PhaseTime {
  const char* name = "";
  double ms = 0;
};

class Executor {
 public:
  virtual ~Executor() = default;

  virtual const ExecutorLimits& limits() const = 0;

  // Computes the rows' tokens, writes their keys and values, and fills `result` beside plan.logit_rows. Calls
  // `meanwhile` once, when the device has its work and the calling thread has none. Called by one thread.
  // Throws only where the device failed: then nothing computed before can be trusted.
  virtual void step(const StepPlan& plan, StepResult& result, const std::function<void()>& meanwhile) = 0;

  // Writes a revision into free pages; a step that begins after the return may read it. Called by one thread,
  // also during a step. Throws bad_alloc where the host's memory ran out, all else only where the device
  // failed.
  virtual Staged stage(const StagePlan& plan, std::span<const std::byte> body) = 0;

  // The slot's pages are free now: makes every product with what is left in them NaN. Called while no step
  // reads the slot and nothing is staged into it. A device that failed says so at the next step.
  virtual void poison(int slot) = 0;

  // Any thread, at any time.
  virtual std::vector<PhaseTime> phases() const = 0;
};

}  // namespace lorikeet
