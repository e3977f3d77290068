#include "cpu_executor.h"

#include <algorithm>
#include <cstdlib>

#include "../error.h"

namespace lorikeet::cpu {
namespace {

// The fastest of the available ones, or the one that LORIKEET_ISA names.
const Isa& chosen_isa() {
  const char* forced = std::getenv("LORIKEET_ISA");
  const Isa* chosen = nullptr;
  std::string names;
  for (const Isa& isa : instruction_sets()) {
    if (!isa.is_available()) continue;
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
    if (forced == nullptr || forced == std::string(isa.name)) chosen = &isa;
  }
  if (chosen != nullptr) return *chosen;
  throw EngineError(
      ErrorCode::kUnsupportedBackend,
      "Expected one of " + names + " for LORIKEET_ISA on this processor but received " + forced);
}

}  // namespace

CpuExecutor::CpuExecutor(const ExecutorOptions& options, const Isa& isa)
    : weights_(open_weights(options.model)),
      threads_(options.threads),
      kv_(weights_.config, options.kv_bytes),
      pages_(weights_.config, options.slots, options.max_rank),
      forward_(weights_, *isa.ops, kv_, pages_, threads_),
      sampler_(weights_.config.vocab),
      limits_{isa.name, kv_.blocks(), {}} {
  limits_.pages.fill(pages_.count());
}

void CpuExecutor::step(const StepPlan& plan, StepResult& result) {
  forward_.run(plan);
  const auto vocab = static_cast<size_t>(weights_.config.vocab);
  const auto total = static_cast<int64_t>(plan.logit_rows.size());
  result.assign(plan.logit_rows.size(), {});
  for (int64_t begin = 0; begin < total; begin += Forward::kLogitRows) {
    const int64_t end = std::min(begin + Forward::kLogitRows, total);
    const std::span<const float> logits = forward_.logits(begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const LogitRow& wanted = plan.logit_rows[static_cast<size_t>(i)];
      result[static_cast<size_t>(i)] =
          sampler_.choose(logits.subspan(static_cast<size_t>(i - begin) * vocab, vocab), wanted);
    }
  }
}

std::string missing() { return {}; }

std::unique_ptr<Executor> open(const ExecutorOptions& options) {
  return std::make_unique<CpuExecutor>(options, chosen_isa());
}

std::unique_ptr<Executor> open_reference(const ExecutorOptions& options) {
  return std::make_unique<CpuExecutor>(options, instruction_sets().front());
}

}  // namespace lorikeet::cpu
