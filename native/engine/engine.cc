#include "engine.h"

#include <algorithm>
#include <chrono>
#include <set>

namespace lorikeet {

Engine::State::State(const EngineOptions& options, Executor& executor)
    : kv(executor.limits().kv_blocks, options.prefix_cache),
      slots({options.slots, options.config.layers, executor.limits().pages},
            [&executor](int slot) { executor.poison(slot); }),
      scheduler({options.max_batch, options.max_batch_tokens, options.max_waiting}, kv),
      staging(slots) {}

Engine::Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, EventSink sink)
    : options_(options), executor_(std::move(executor)), sink_(std::move(sink)), state_(options, *executor_) {
  // Not through the inbox: a step may take long, and it does not read what is being staged.
  const Packer::Done done = {
      [this](Inspected inspected) { return state_.lock()->staging.inspected(std::move(inspected)); },
      [this](const Packed& packed) {
        state_.lock()->staging.packed(packed);
        if (packed.error && packed.error->code() == ErrorCode::kEngineFailed)
          inbox_.put(Fail{packed.error->what()});
      }};
  packer_ = std::make_unique<Packer>(options_.config, *executor_, done);
  thread_ = std::thread([this] { run(); });
}

Engine::~Engine() { join(); }

void Engine::join() {
  if (thread_.joinable()) thread_.join();
}

EngineInfo Engine::info() const {
  const ExecutorLimits& limits = executor_->limits();
  return {limits.backend,  limits.stored, limits.memory, options_.slots, state_.lock()->slots.pages(),
          limits.kv_blocks};
}

void Engine::run() {
  while (take_commands()) {
    std::vector<Chunk> chunks = schedule();
    if (chunks.empty()) {
      flush();
      continue;
    }
    try {
      step(chunks);
    } catch (const std::exception& error) {
      // The cache may hold half a step: nothing computed from it can be trusted.
      state_.lock()->poison(error.what());
      flush();
    }
  }
}

// False once the engine is closed. Sleeps while there is nothing to do.
bool Engine::take_commands() {
  const bool idle = state_.lock()->scheduler.is_idle();
  if (idle) flush();
  std::vector<Command> commands = inbox_.take(idle);
  if (commands.empty()) return true;
  flush();  // what the last step said comes before what these say
  {
    const auto state = state_.lock();
    for (Command& command : commands) {
      std::visit([&](auto& c) { apply(*state, c); }, command);
    }
  }
  flush();
  if (!state_.lock()->closed) return true;
  packer_.reset();  // without the lock, which its last job may be waiting for
  state_.lock()->staging.close(EngineError(ErrorCode::kClosing, "The engine is closing"));
  const std::function<void()> closed = state_.lock()->closed;
  closed();
  return false;
}

std::vector<Chunk> Engine::schedule() {
  const auto state = state_.lock();
  state->move_on();
  std::vector<Chunk> chunks = state->scheduler.schedule();
  state->stepping = !chunks.empty();
  return chunks;
}

void Engine::State::move_on() {
  for (const auto& sequence : scheduler.running()) move_on(*sequence);
  for (const auto& sequence : scheduler.waiting()) move_on(*sequence);
}

void Engine::State::move_on(Sequence& sequence) {
  const GenerateRequest& request = sequence.request;
  if (request.target.kind != Target::Kind::kAdapter || request.policy == Policy::kPin) return;
  const auto found = current.find(request.target.name);
  if (found == current.end()) return;
  const Current& now = found->second;
  if (request.policy == Policy::kActivation && now.migrates <= sequence.epoch) return;
  const std::string before = slots.revision(sequence.slot);
  const std::optional<int> slot = slots.find_ready(now.revision);
  if (now.revision == before || !slot) return;
  slots.lease(*slot);
  if (slots.end_lease(sequence.slot)) emit(0, Freed{before});
  sequence.slot = *slot;
  sequence.epoch = epoch;
  sequence.root = root_of(request, now.revision);
  sequence.is_mixed = sequence.computed > 0;
  emit(request.id, Moved{now.revision});
}

void Engine::flush() {
  std::vector<Event> events = std::exchange(state_.lock()->events, {});
  if (!events.empty()) sink_(std::move(events));
}

// What a step said goes out while the next one runs.
void Engine::step(std::vector<Chunk>& chunks) {
  const auto began = std::chrono::steady_clock::now();
  executor_->step(stepping_.builder.build(chunks), stepping_.result, [this] { flush(); });
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - began;
  std::vector<std::vector<RowResult*>> of_chunk(chunks.size());
  for (size_t i = 0; i < stepping_.result.size(); ++i) {
    of_chunk[stepping_.builder.chunk_of_logit_row()[i]].push_back(&stepping_.result[i]);
  }
  const auto state = state_.lock();
  ++state->steps;
  state->stepping = false;
  state->scheduler.took(chunks, took.count());
  for (size_t c = 0; c < chunks.size(); ++c) state->deliver(chunks[c], of_chunk[c]);
}

// `results` are those of the chunk's logit rows, in order.
void Engine::State::deliver(const Chunk& chunk, const std::vector<RowResult*>& results) {
  Sequence& sequence = *chunk.sequence;
  const int64_t id = sequence.request.id;
  if (!std::exchange(sequence.has_started, true)) emit(id, Started{*sequence.cached_tokens});
  scheduler.computed(chunk);
  prompt_tokens += std::clamp<int64_t>(sequence.prompt_length() - chunk.begin, 0, chunk.count);
  if (!std::all_of(results.begin(), results.end(), [](const RowResult* row) { return row->finite; })) {
    return end(id,
               Failed{ErrorCode::kNonFinite, "The logits are not finite: adapter weights overflow float32"});
  }
  const bool samples = chunk.begin + chunk.count == sequence.length() && sequence.request.max_tokens > 0;
  for (size_t i = 0; i < results.size() - (samples ? 1 : 0); ++i) {
    sequence.prompt_scores.push_back(std::move(*results[i]->logprobs));
  }
  if (sequence.computed < sequence.length()) return;
  if (sequence.request.prompt_logprobs >= 0 && !sequence.prompt_reported) {
    emit(id, PromptScored{std::exchange(sequence.prompt_scores, {})});
    sequence.prompt_reported = true;
  }
  if (!samples) return end(id, Finished{"length"});
  deliver_token(sequence, *results.back());
}

void Engine::State::deliver_token(Sequence& sequence, RowResult& sampled) {
  const GenerateRequest& request = sequence.request;
  ++generated_tokens;
  if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), sampled.token) !=
      request.stop_tokens.end()) {
    return end(request.id, Finished{"stop", sampled.token, std::move(sampled.logprobs)});
  }
  sequence.tokens.push_back(sampled.token);
  emit(request.id, TokenGenerated{sampled.token, std::move(sampled.logprobs)});
  if (sequence.generated() >= request.max_tokens) end(request.id, Finished{"length"});
}

void Engine::State::end(int64_t id, decltype(Event::what) last_event) {
  const std::unique_ptr<Sequence> sequence = scheduler.take_out(id);
  if (sequence) end(*sequence, std::move(last_event));
}

void Engine::State::end(const Sequence& sequence, decltype(Event::what) last_event) {
  emit(sequence.request.id, std::move(last_event));
  if (sequence.slot < 0) return;
  const std::string revision = slots.revision(sequence.slot);
  if (slots.end_lease(sequence.slot)) emit(0, Freed{revision});
}

// Ends all service, and says so also where nobody is served.
void Engine::State::poison(const std::string& message) {
  poisoned_by = message;
  fail_all(ErrorCode::kEngineFailed, message);
  emit(0, Failed{ErrorCode::kEngineFailed, message});
}

void Engine::State::fail_all(ErrorCode code, const std::string& message) {
  const auto first_id = [this]() -> std::optional<int64_t> {
    if (!scheduler.running().empty()) return scheduler.running().front()->request.id;
    if (!scheduler.waiting().empty()) return scheduler.waiting().front()->request.id;
    return std::nullopt;
  };
  while (const std::optional<int64_t> id = first_id()) end(*id, Failed{code, message});
}

Snapshot Engine::snapshot() const {
  const auto state = state_.lock();
  Snapshot s;
  s.step = state->steps;
  s.epoch = state->epoch;
  s.running = static_cast<int64_t>(state->scheduler.running().size());
  s.waiting = static_cast<int64_t>(state->scheduler.waiting().size());
  s.kv_blocks_used = state->kv.used();
  s.pages_used = state->slots.pages_used();
  s.slots = state->slots.snapshot();
  const auto names = [](const auto& sequences) {
    std::set<std::string> found;
    for (const auto& sequence : sequences) {
      const Target& target = sequence->request.target;
      if (target.kind == Target::Kind::kAdapter) found.insert(target.name);
    }
    return std::vector<std::string>(found.begin(), found.end());
  };
  s.running_adapters = names(state->scheduler.running());
  s.waiting_adapters = names(state->scheduler.waiting());
  s.prompt_tokens = state->prompt_tokens;
  s.generated_tokens = state->generated_tokens;
  s.preemptions = state->scheduler.preemptions();
  s.prefixes = state->scheduler.prefixes();
  s.phases = executor_->phases();
  return s;
}

}  // namespace lorikeet
