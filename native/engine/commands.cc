// What callers ask for. Which revision a request gets, and what changes those, is decided at once and in the
// order of calls, under the lock, which no step holds; the engine thread takes commands between two steps.
#include <algorithm>

#include "engine.h"

namespace lorikeet {
namespace {

std::string number(int64_t value) { return std::to_string(value); }

}  // namespace

void Engine::submit(GenerateRequest request) {
  check(request);
  const int64_t id = request.id;
  try {
    const auto state = state_.lock();
    state->require_service();
    if (inbox_.size() >= static_cast<size_t>(options_.max_waiting + options_.max_batch)) {
      throw EngineError(ErrorCode::kQueueFull,
                        "The engine has not yet taken in the requests before this one");
    }
    auto sequence = std::make_unique<Sequence>();
    sequence->slot = state->resolve(request.target);
    if (sequence->slot >= 0) state->slots.lease(sequence->slot);
    sequence->root = root_of(request, sequence->slot < 0 ? "" : state->slots.revision(sequence->slot));
    sequence->epoch = state->epoch;
    sequence->tokens = request.prompt;
    sequence->request = std::move(request);
    inbox_.put(Submit{std::move(sequence)});
  } catch (const EngineError& error) {
    sink_({{id, Failed{error.code(), error.what()}}});
  }
}

// Whether the model can ever serve the request.
void Engine::check(const GenerateRequest& request) const {
  const ModelConfig& config = options_.config;
  const auto in_vocab = [&](int32_t token) { return token >= 0 && token < config.vocab; };
  if (request.prompt.empty() || !std::all_of(request.prompt.begin(), request.prompt.end(), in_vocab)) {
    throw EngineError::invalid(
        "prompt", "Expected at least one token id below " + number(config.vocab) + " for prompt");
  }
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    if (!in_vocab(token)) {
      throw EngineError::invalid("logitBias", "Expected token ids below " + number(config.vocab) +
                                                  " for logitBias but received " + number(token));
    }
  }
  const int64_t limit = std::min(config.context, executor_->limits().kv_blocks * kBlockTokens);
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (request.prompt_logprobs_from > prompt) {
    throw EngineError::invalid("promptLogprobsFrom", "Expected at most " + number(prompt) +
                                                         " for promptLogprobsFrom but received " +
                                                         number(request.prompt_logprobs_from));
  }
  if (prompt > limit || request.max_tokens > limit - prompt) {
    throw EngineError::invalid("maxTokens", "Expected at most " + number(limit) +
                                                " tokens of prompt and answer but received " +
                                                number(prompt) + " and " + number(request.max_tokens));
  }
}

void Engine::stage(StageRequest request, StageReply reply) {
  check(request);
  const auto state = state_.lock();
  state->require_service();
  std::optional<StageRequest> to_inspect = state->staging.begin(std::move(request), std::move(reply));
  if (to_inspect)
    packer_->add(std::move(*to_inspect));  // with the lock, under which close() takes the packer away
}

Switched Engine::activate(const std::string& adapter, const std::string& revision, bool migrates) {
  const auto state = state_.lock();
  if (const std::optional<int> slot = state->slots.find_ready(revision)) state->slots.touch(*slot);
  Current& current = state->current[adapter];
  if (current.revision != revision) {
    current.revision = revision;
    current.migrates = 0;
    ++state->epoch;
  }
  if (migrates) current.migrates = state->epoch;
  return state->switched();
}

Switched Engine::deactivate(const std::string& adapter) {
  const auto state = state_.lock();
  if (state->current.erase(adapter) > 0) ++state->epoch;
  return state->switched();
}

int64_t Engine::release(const std::string& revision) {
  const auto state = state_.lock();
  if (state->staging.release(revision)) return 0;
  const std::optional<int> slot = state->slots.find(revision);
  if (!slot) return 0;
  const int64_t leases = state->slots.leases(*slot);
  state->slots.release(*slot);
  return leases;
}

// Every bound of the body and of the model, before the packer reads or writes anything.
void Engine::check(const StageRequest& request) const {
  const ModelConfig& config = options_.config;
  if (request.modules.empty()) throw EngineError::invalid("modules", "Expected at least one module");
  std::vector<bool> seen(static_cast<size_t>(config.layers * kModules));
  for (size_t i = 0; i < request.modules.size(); ++i) {
    const StageModule& m = request.modules[i];
    const std::string at = "modules[" + std::to_string(i) + "].";
    const auto require = [&](const char* field, int64_t value, int64_t low, int64_t high) {
      if (value >= low && value <= high) return;
      throw EngineError::invalid(at + field, "Expected an integer between " + number(low) + " and " +
                                                 number(high) + " for " + at + field + " but received " +
                                                 number(value));
    };
    const auto size = static_cast<int64_t>(request.body.size());
    require("layer", m.layer, 0, layers_of(group_of(m.module), config.layers) - 1);
    require("rank", m.rank, 1, options_.max_rank);
    const int64_t a_bytes = m.rank * module_in(config, m.module) * dtype_bytes(m.a_dtype);
    const int64_t b_bytes = m.rank * module_out(config, m.module) * dtype_bytes(m.b_dtype);
    require("a.offset", m.a_offset, 0, size - a_bytes);
    require("b.offset", m.b_offset, 0, size - b_bytes);
    const size_t place = place_of(m.layer, m.module);
    if (seen[place]) throw EngineError::invalid(at + "module", "Expected each module of a layer once");
    seen[place] = true;
  }
}

void Engine::State::require_service() const {
  if (!poisoned_by.empty()) throw EngineError(ErrorCode::kEngineFailed, poisoned_by);
  if (closed) throw EngineError(ErrorCode::kClosing, "The engine is closing");
}

int Engine::State::resolve(const Target& target) const {
  if (target.kind == Target::Kind::kBase) return -1;
  std::string revision = target.name;
  if (target.kind == Target::Kind::kAdapter) {
    const auto active = current.find(target.name);
    if (active == current.end()) {
      throw EngineError(ErrorCode::kAdapterNotFound, "No adapter " + target.name + " is active");
    }
    revision = active->second.revision;
  }
  const std::optional<int> slot = slots.find_ready(revision);
  if (!slot) throw EngineError(ErrorCode::kNotResident, "Revision " + revision + " is in no slot");
  return *slot;
}

void Engine::apply(State& state, Submit& command) {
  const Sequence& sequence = *command.sequence;
  try {
    state.require_service();
    if (state.scheduler.is_full()) {
      throw EngineError(ErrorCode::kQueueFull, "All seats of the waiting queue are taken");
    }
  } catch (const EngineError& error) {
    return state.end(sequence, Failed{error.code(), error.what()});
  }
  std::optional<std::string> revision;
  if (sequence.slot >= 0) revision = state.slots.revision(sequence.slot);
  state.emit(sequence.request.id, Accepted{std::move(revision), state.steps + 1});
  state.scheduler.add(std::move(command.sequence));
}

void Engine::apply(State& state, Cancel& command) { state.end(command.id, Finished{"cancelled"}); }

void Engine::apply(State& state, Fail& command) {
  if (state.poisoned_by.empty()) state.poison(command.message);
}

void Engine::apply(State& state, Close& command) {
  state.closed = std::move(command.done);
  state.fail_all(ErrorCode::kClosing, "The engine is closing");
}

}  // namespace lorikeet
