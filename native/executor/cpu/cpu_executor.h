// The executor of the host's processor: kernels of one instruction set (kernels/ops.h), threads, host memory.
#pragma once

#include <memory>
#include <string>

#include "../executor.h"
#include "adapter_pages.h"
#include "forward.h"
#include "kernels/ops.h"
#include "kv_cache.h"
#include "team.h"
#include "weights.h"

namespace lorikeet::cpu {

class CpuExecutor : public Executor {
 public:
  CpuExecutor(const ExecutorOptions& options, const char* name, const Ops& ops);

  const ExecutorLimits& limits() const override { return limits_; }
  // The calling thread computes too, so what it does meanwhile it does before.
  void step(const StepPlan& plan, StepResult& result, const std::function<void()>& meanwhile) override {
    meanwhile();
    forward_.run(plan, result);
  }
  Staged stage(const StagePlan& plan, std::span<const std::byte> body) override {
    return {pages_.write(plan, body)};
  }
  void poison(int slot) override { pages_.poison(slot); }
  std::vector<PhaseTime> phases() const override { return forward_.times(); }

 private:
  Team team_;
  const Weights weights_;
  const KvCache kv_;
  AdapterPages pages_;
  Forward forward_;
  ExecutorLimits limits_;
};

// What LORIKEET_ISA may name on this processor, the plainest first.
std::vector<std::string> instruction_set_names();
// Why this processor cannot run fast kernels; empty where it can.
std::string missing();
// With the fastest instruction set of this processor; LORIKEET_ISA names another. Throws unsupported_backend.
std::unique_ptr<Executor> open(const ExecutorOptions& options);
// The exact and slow one; float32 only.
std::unique_ptr<Executor> open_reference(const ExecutorOptions& options);

}  // namespace lorikeet::cpu
