// The executor of a GPU: plans go as flat arrays to a library that is opened where it is (api.h). Rows whose
// sampling the device does not know are sampled here.
#pragma once

#include <atomic>
#include <memory>

#include "../executor.h"
#include "../sampler.h"
#include "api.h"
#include "device/memory.h"

namespace lorikeet::cuda {

class CudaExecutor : public Executor {
 public:
  CudaExecutor(const ExecutorOptions& options, const Api& api);

  const ExecutorLimits& limits() const override { return limits_; }
  void step(const StepPlan& plan, StepResult& result, const std::function<void()>& meanwhile) override;
  Staged stage(const StagePlan& plan, std::span<const std::byte> body) override;
  void poison(int slot) override;
  std::vector<PhaseTime> phases() const override;

 private:
  struct Closer {
    const Api* api;
    void operator()(void* device) const { api->close(device); }
  };

  std::unique_ptr<void, Closer> open(const ExecutorOptions& options);
  void submit(const StepPlan& plan);
  void choose(const StepPlan& plan, int64_t first, int32_t rows, StepResult& result);
  RowResult result_of(const LogitRow& row, int32_t i, const Chosen& chosen);

  const Api& api_;
  const ModelConfig config_;
  const int64_t pages_max_;
  const PageMap pages_;
  ExecutorLimits limits_;
  std::unique_ptr<void, Closer> device_;
  Sampler sampler_;
  std::vector<float> logits_;  // of a row that is sampled here

  // Of a step, as arrays.
  std::vector<Run> runs_;
  std::vector<int32_t> table_of_, tables_;

  std::atomic<int64_t> nanoseconds_ = 0;
};

// Why no GPU can be used here; empty where one can.
std::string missing();
std::unique_ptr<Executor> open(const ExecutorOptions& options);

}  // namespace lorikeet::cuda
