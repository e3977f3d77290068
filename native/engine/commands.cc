// What the engine thread does with each command, between two steps.
#include <algorithm>

#include "engine.h"

namespace lorikeet {
namespace {

EngineError unknown_revision(const std::string& revision) {
  return EngineError("revision_not_found", "No resident revision " + revision + " is ready");
}

std::string number(int64_t value) { return std::to_string(value); }

}  // namespace

void Engine::submit(GenerateRequest request) {
  const ModelConfig& config = weights_.config;
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
  const int64_t limit = std::min(config.context, kv_.total() * kBlockTokens);
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (prompt > limit || request.max_tokens > limit - prompt) {
    throw EngineError::invalid("maxTokens", "Expected at most " + number(limit) +
                                                " tokens of prompt and answer but received " +
                                                number(prompt) + " and " + number(request.max_tokens));
  }
  const int64_t id = request.id;
  if (!inbox_.try_put(Submit{std::move(request)},
                      static_cast<size_t>(options_.max_waiting + options_.max_batch))) {
    sink_({{id, Failed{"queue_full", "The engine has not yet taken in the requests before this one"}}});
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
  const ModelConfig& config = weights_.config;
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
    require("layer", m.layer, 0, config.layers - 1);
    require("rank", m.rank, 1, options_.max_rank);
    const int64_t a_bytes = m.rank * module_in(config, m.module) * dtype_bytes(m.a_dtype);
    const int64_t b_bytes = m.rank * module_out(config, m.module) * dtype_bytes(m.b_dtype);
    require("a.offset", m.a_offset, 0, size - a_bytes);
    require("b.offset", m.b_offset, 0, size - b_bytes);
    const auto place = static_cast<size_t>(m.layer * kModules + static_cast<int64_t>(m.module));
    if (seen[place]) throw EngineError::invalid(at + "module", "Expected each module of a layer once");
    seen[place] = true;
  }
}

// The slot that serves a target, -1 for the base. Throws what the request fails with.
int Engine::resolve(const Target& target) const {
  if (target.kind == Target::Kind::kBase) return -1;
  std::string revision = target.name;
  if (target.kind == Target::Kind::kAdapter) {
    const auto current = current_.find(target.name);
    if (current == current_.end()) {
      throw EngineError("adapter_not_found", "No adapter " + target.name + " is active");
    }
    revision = current->second;
  }
  const std::optional<int> slot = slots_.find(revision);
  if (!slot || slots_.state(*slot) != SlotPool::State::kReady) {
    throw EngineError("not_resident", "Revision " + revision + " is in no slot");
  }
  return *slot;
}

void Engine::apply(Submit& command) {
  GenerateRequest& request = command.request;
  const int64_t id = request.id;
  if (!poisoned_by_.empty()) return emit(id, Failed{"engine_failed", poisoned_by_});
  if (closed_) return emit(id, Failed{"closing", "The engine is closing"});
  if (scheduler_.is_full()) return emit(id, Failed{"queue_full", "All seats of the waiting queue are taken"});
  auto sequence = std::make_unique<Sequence>();
  try {
    sequence->slot = resolve(request.target);
  } catch (const EngineError& error) {
    return emit(id, Failed{error.code(), error.what()});
  }
  std::optional<std::string> revision;
  if (sequence->slot >= 0) {
    slots_.lease(sequence->slot);
    revision = slots_.revision(sequence->slot);
  }
  emit(id, Accepted{std::move(revision), steps_ + 1});
  sequence->tokens = request.prompt;
  sequence->request = std::move(request);
  scheduler_.add(std::move(sequence));
}

void Engine::apply(Cancel& command) { end(command.id, Finished{"cancelled"}); }

// Staging goes stage() -> inspect -> reserve -> pack -> ready. A revision with bad numbers is refused before
// it takes a slot, so it evicts nobody. Reserving and making ready happen on the packer's thread, also during a
// step: they touch slots without leases only, and a step reads leased ones only.
void Engine::apply(Stage& command) {
  StageRequest& request = command.request;
  if (closed_) return command.reply(EngineError("closing", "The engine is closing"));
  if (!poisoned_by_.empty()) return command.reply(EngineError("engine_failed", poisoned_by_));
  if (const std::optional<int> slot = slots_.find(request.revision);
      slot && !staging_.contains(request.revision)) {
    slots_.revive(*slot);
    return command.reply(StageReport{*slot, slots_.pages_of(*slot), slots_.zero_effect(*slot), {}, 0});
  }
  std::vector<Reply<StageReport>>& replies = staging_[request.revision].replies;
  replies.push_back(std::move(command.reply));
  if (replies.size() == 1) packer_->add_inspection(std::move(request));
}

void Engine::apply(Inspected& inspected) {
  if (closed_) return;
  StageRequest& request = inspected.request;
  const std::string revision = request.revision;
  Staging& staging = staging_.at(revision);
  if (inspected.error || staging.released) return end_staging(revision, inspected.error);
  try {
    SlotPool::Reservation reserved = slots_.reserve(revision, request.modules);
    staging.report = {reserved.slot, reserved.pages, inspected.zero_effect, std::move(reserved.evicted), 0};
    packer_->add_packing(std::move(request), std::move(reserved.targets));
  } catch (const EngineError& error) {
    end_staging(revision, error);
  }
}

void Engine::apply(Packed& packed) {
  if (closed_) return;
  Staging& staging = staging_.at(packed.revision);
  staging.report.pack_ms = packed.pack_ms;
  const int slot = static_cast<int>(staging.report.slot);
  if (staging.released) {
    slots_.abandon(slot);
  } else {
    slots_.make_ready(slot, staging.report.zero_effect);
  }
  end_staging(packed.revision, std::nullopt);
}

void Engine::end_staging(const std::string& revision, const std::optional<EngineError>& error) {
  const Staging staging = std::move(staging_.extract(revision).mapped());
  std::optional<EngineError> failure = error;
  if (staging.released && !failure) {
    failure = EngineError("revision_not_found", "Revision " + revision + " was released while it was staged");
  }
  for (const Reply<StageReport>& reply : staging.replies) {
    if (failure) {
      reply(*failure);
    } else {
      reply(staging.report);
    }
  }
}

void Engine::apply(Activate& command) {
  const std::optional<int> slot = slots_.find(command.revision);
  if (!slot || slots_.state(*slot) != SlotPool::State::kReady) {
    return command.reply(unknown_revision(command.revision));
  }
  slots_.touch(*slot);
  std::string& current = current_[command.adapter];
  if (current != command.revision) {
    current = command.revision;
    ++epoch_;
  }
  command.reply(Switched{steps_ + 1, epoch_});
}

void Engine::apply(Deactivate& command) {
  if (current_.erase(command.adapter) > 0) ++epoch_;
  command.reply(Switched{steps_ + 1, epoch_});
}

void Engine::apply(Release& command) {
  if (const auto staging = staging_.find(command.revision); staging != staging_.end()) {
    staging->second.released = true;
    return command.reply(int64_t{0});
  }
  const std::optional<int> slot = slots_.find(command.revision);
  if (!slot) return command.reply(int64_t{0});
  const int64_t leases = slots_.leases(*slot);
  slots_.release(*slot);
  command.reply(leases);
}

void Engine::apply(Close& command) {
  closed_ = std::move(command.done);
  fail_all("closing", "The engine is closing");
}

}  // namespace lorikeet
