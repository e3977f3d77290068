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
  for (const Isa& isa : instruction_sets()) {
    if (isa.is_available() && (forced == nullptr || forced == std::string(isa.name))) chosen = &isa;
  }
  if (chosen != nullptr) return *chosen;
  std::string names;
  for (const std::string& name : instruction_set_names()) names += (names.empty() ? "" : ", ") + name;
  throw EngineError(
      ErrorCode::kUnsupportedBackend,
      "Expected one of " + names + " for LORIKEET_ISA on this processor but received " + forced);
}

bool is_stored_in_bf16(const ModelDescriptor& model) {
  const auto is_bf16 = [](const FileTensor& tensor) { return tensor.dtype == Dtype::kBF16; };
  return is_bf16(model.head) &&
         std::all_of(model.layers.begin(), model.layers.end(), [&](const LayerTensors& l) {
           return is_bf16(l.q) && is_bf16(l.k) && is_bf16(l.v) && is_bf16(l.o) && is_bf16(l.gate) &&
                  is_bf16(l.up) && is_bf16(l.down);
         });
}

std::unique_ptr<Executor> open_with(const Isa& isa, const ExecutorOptions& options) {
  const bool wants_bf16 = options.compute == Compute::kBfloat16;
  if (wants_bf16 && isa.bfloat16 == nullptr) {
    throw EngineError::invalid("dtype", std::string("Expected auto or float32 for dtype with ") + isa.name +
                                            " kernels, which are exact, but received bfloat16");
  }
  const bool may_bf16 = options.compute == Compute::kAuto && isa.bfloat16 && is_stored_in_bf16(options.model);
  return std::make_unique<CpuExecutor>(options, isa.name,
                                       wants_bf16 || may_bf16 ? *isa.bfloat16 : *isa.float32);
}

}  // namespace

CpuExecutor::CpuExecutor(const ExecutorOptions& options, const char* name, const Ops& ops)
    : team_(options.threads),
      weights_(open_weights(options.model, ops.stored, team_, options.progress)),
      kv_(weights_.config, ops.stored, options.kv_bytes),
      pages_(weights_.config, ops.stored, options.slots, options.max_rank),
      forward_(weights_, ops, kv_, pages_, team_, {options.max_batch_tokens, options.max_rank}) {
  limits_.backend = name;
  limits_.stored = ops.stored;
  limits_.kv_blocks = kv_.blocks();
  limits_.pages = pages_.counts();
  limits_.memory = {static_cast<int64_t>(weights_.panels.bytes()), kv_.bytes(), pages_.bytes(),
                    forward_.buffer_bytes()};
}

std::vector<std::string> instruction_set_names() {
  std::vector<std::string> names;
  for (const Isa& isa : instruction_sets()) {
    if (isa.is_available()) names.emplace_back(isa.name);
  }
  return names;
}

std::string missing() { return {}; }

std::unique_ptr<Executor> open(const ExecutorOptions& options) { return open_with(chosen_isa(), options); }

std::unique_ptr<Executor> open_reference(const ExecutorOptions& options) {
  return open_with(instruction_sets().front(), options);
}

}  // namespace lorikeet::cpu
