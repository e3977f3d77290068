// The executor of the host's processor: kernels of one instruction set (kernels/ops.h), threads, host memory.
#pragma once

#include <memory>
#include <string>

#include "../executor.h"
#include "adapter_pages.h"
#include "forward.h"
#include "kernels/ops.h"
#include "kv_cache.h"
#include "sampler.h"
#include "threads.h"
#include "weights.h"

namespace lorikeet::cpu {

class CpuExecutor : public Executor {
 public:
  CpuExecutor(const ExecutorOptions& options, const Isa& isa);

  const ExecutorLimits& limits() const override { return limits_; }
  void step(const StepPlan& plan, StepResult& result) override;
  void stage(const StagePlan& plan, std::span<const std::byte> body) override { pages_.write(plan, body); }
  void poison(int slot) override { pages_.poison(slot); }

 private:
  const Weights weights_;
  Threads threads_;
  KvCache kv_;
  AdapterPages pages_;
  Forward forward_;
  Sampler sampler_;
  ExecutorLimits limits_;
};

// Why this processor cannot run fast kernels; empty where it can.
std::string missing();
// With the fastest instruction set of this processor; LORIKEET_ISA names another. Throws unsupported_backend.
std::unique_ptr<Executor> open(const ExecutorOptions& options);
// The exact and slow one.
std::unique_ptr<Executor> open_reference(const ExecutorOptions& options);

}  // namespace lorikeet::cpu
