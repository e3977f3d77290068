// What the engine thread does with each command, between two steps.
#include <algorithm>

#include "engine.h"

namespace lorikeet {
namespace {

EngineError unknown_revision(const std::string& revision) {
  return EngineError(ErrorCode::kRevisionNotFound, "No resident revision " + revision + " is ready");
}

std::string number(int64_t value) { return std::to_string(value); }

}  // namespace

void Engine::submit(GenerateRequest request) {
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
  if (prompt > limit || request.max_tokens > limit - prompt) {
    throw EngineError::invalid("maxTokens", "Expected at most " + number(limit) +
                                                " tokens of prompt and answer but received " +
                                                number(prompt) + " and " + number(request.max_tokens));
  }
  const int64_t id = request.id;
  if (!inbox_.try_put(Submit{std::move(request)},
                      static_cast<size_t>(options_.max_waiting + options_.max_batch))) {
    sink_({{id,
            Failed{ErrorCode::kQueueFull, "The engine has not yet taken in the requests before this one"}}});
  }
}

void Engine::stage(StageRequest request, Reply<StageReport> reply) {
  check(request);
  inbox_.put(Stage{std::move(request), std::move(reply)});
}

void Engine::activate(std::string adapter, std::string revision, Reply<Switched> reply) {
  inbox_.put(Activate{std::move(adapter), std::move(revision), std::move(reply)});
}

void Engine::deactivate(std::string adapter, Reply<Switched> reply) {
  inbox_.put(Deactivate{std::move(adapter), std::move(reply)});
}

void Engine::release(std::string revision, Reply<int64_t> reply) {
  inbox_.put(Release{std::move(revision), std::move(reply)});
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

int Engine::State::resolve(const Target& target) const {
  if (target.kind == Target::Kind::kBase) return -1;
  std::string revision = target.name;
  if (target.kind == Target::Kind::kAdapter) {
    const auto active = current.find(target.name);
    if (active == current.end()) {
      throw EngineError(ErrorCode::kAdapterNotFound, "No adapter " + target.name + " is active");
    }
    revision = active->second;
  }
  const std::optional<int> slot = slots.find_ready(revision);
  if (!slot) throw EngineError(ErrorCode::kNotResident, "Revision " + revision + " is in no slot");
  return *slot;
}

void Engine::apply(State& state, Submit& command) {
  GenerateRequest& request = command.request;
  const auto fail = [&, id = request.id](ErrorCode code, std::string message) {
    state.emit(id, Failed{code, std::move(message)});
  };
  if (!state.poisoned_by.empty()) return fail(ErrorCode::kEngineFailed, state.poisoned_by);
  if (state.closed) return fail(ErrorCode::kClosing, "The engine is closing");
  if (state.scheduler.is_full()) {
    return fail(ErrorCode::kQueueFull, "All seats of the waiting queue are taken");
  }
  auto sequence = std::make_unique<Sequence>();
  try {
    sequence->slot = state.resolve(request.target);
  } catch (const EngineError& error) {
    return fail(error.code(), error.what());
  }
  std::optional<std::string> revision;
  if (sequence->slot >= 0) {
    state.slots.lease(sequence->slot);
    revision = state.slots.revision(sequence->slot);
  }
  state.emit(request.id, Accepted{std::move(revision), state.steps + 1});
  sequence->tokens = request.prompt;
  sequence->request = std::move(request);
  state.scheduler.add(std::move(sequence));
}

void Engine::apply(State& state, Cancel& command) { state.end(command.id, Finished{"cancelled"}); }

void Engine::apply(State& state, Stage& command) {
  if (state.closed) return command.reply(EngineError(ErrorCode::kClosing, "The engine is closing"));
  if (!state.poisoned_by.empty()) {
    return command.reply(EngineError(ErrorCode::kEngineFailed, state.poisoned_by));
  }
  std::optional<StageRequest> to_inspect =
      state.staging.begin(std::move(command.request), std::move(command.reply));
  if (to_inspect) packer_->add(std::move(*to_inspect));
}

void Engine::apply(State& state, Activate& command) {
  const std::optional<int> slot = state.slots.find_ready(command.revision);
  if (!slot) return command.reply(unknown_revision(command.revision));
  state.slots.touch(*slot);
  std::string& current = state.current[command.adapter];
  if (current != command.revision) {
    current = command.revision;
    ++state.epoch;
  }
  command.reply(Switched{state.steps + 1, state.epoch});
}

void Engine::apply(State& state, Deactivate& command) {
  if (state.current.erase(command.adapter) > 0) ++state.epoch;
  command.reply(Switched{state.steps + 1, state.epoch});
}

void Engine::apply(State& state, Release& command) {
  if (state.staging.release(command.revision)) return command.reply(int64_t{0});
  const std::optional<int> slot = state.slots.find(command.revision);
  if (!slot) return command.reply(int64_t{0});
  const int64_t leases = state.slots.leases(*slot);
  state.slots.release(*slot);
  command.reply(leases);
}

void Engine::apply(State& state, Fail& command) {
  if (state.poisoned_by.empty()) state.poison(command.message);
}

void Engine::apply(State& state, Close& command) {
  state.closed = std::move(command.done);
  state.fail_all(ErrorCode::kClosing, "The engine is closing");
}

}  // namespace lorikeet
