#include "engine.h"

#include <algorithm>
#include <set>

namespace lorikeet {

Engine::Engine(const EngineOptions& options, EventSink sink)
    : options_(options),
      weights_(open_weights(options.model)),
      sink_(std::move(sink)),
      threads_(options.threads),
      kv_(options.model.config, options.kv_bytes),
      slots_(options.model.config, options.slots, options.max_rank),
      scheduler_({options.max_batch, options.max_batch_tokens, options.max_waiting}, kv_),
      forward_(weights_, *options.ops, kv_, slots_, threads_),
      sampler_(options.model.config.vocab) {
  // Not through the inbox: a step may take long, and it does not read what is being staged.
  const Packer::Done done = {[this](Inspected inspected) {
                               const std::lock_guard lock(state_);
                               apply(inspected);
                             },
                             [this](Packed packed) {
                               const std::lock_guard lock(state_);
                               apply(packed);
                             }};
  packer_ = std::make_unique<Packer>(weights_.config, done);
  thread_ = std::thread([this] { run(); });
}

Engine::~Engine() { join(); }

void Engine::join() {
  if (thread_.joinable()) thread_.join();
}

EngineInfo Engine::info() const { return {options_.ops->name, options_.slots, slots_.pages(), kv_.total()}; }

void Engine::run() {
  while (take_commands()) {
    std::vector<Chunk> chunks;
    {
      const std::lock_guard lock(state_);
      chunks = scheduler_.schedule();
    }
    if (chunks.empty()) continue;
    try {
      step(chunks);
    } catch (const std::exception& error) {
      // The cache may hold half a step: nothing computed from it can be trusted.
      const std::lock_guard lock(state_);
      poisoned_by_ = error.what();
      fail_all("engine_failed", poisoned_by_);
    }
    flush();
  }
}

// False once the engine is closed. Sleeps while there is nothing to do.
bool Engine::take_commands() {
  std::vector<Command> commands = inbox_.take(scheduler_.is_idle());
  {
    const std::lock_guard lock(state_);
    for (Command& command : commands) {
      std::visit([this](auto& c) { apply(c); }, command);
    }
  }
  flush();
  if (!closed_) return true;
  packer_.reset();  // without the lock, which its last job may be waiting for
  {
    const std::lock_guard lock(state_);
    const EngineError closing("closing", "The engine is closing");
    while (!staging_.empty()) end_staging(std::string(staging_.begin()->first), closing);
  }
  closed_();
  return false;
}

void Engine::flush() {
  if (!events_.empty()) sink_(std::exchange(events_, {}));
}

void Engine::step(const std::vector<Chunk>& chunks) {
  forward_.run(chunks, logit_rows(chunks));
  std::vector<Sampled> sampled = sample(chunks);
  const std::lock_guard lock(state_);
  ++steps_;
  deliver(chunks, std::move(sampled));
}

// Which rows need logits: the last one of a sequence to sample from, and prompt rows to be scored.
std::vector<int32_t> Engine::logit_rows(const std::vector<Chunk>& chunks) {
  logit_rows_.clear();
  std::vector<int32_t> rows;
  int32_t row = 0;
  for (size_t c = 0; c < chunks.size(); ++c) {
    const Sequence& sequence = *chunks[c].sequence;
    const auto scored = static_cast<int64_t>(sequence.prompt_scores.size());
    for (int64_t i = 0; i < chunks[c].count; ++i, ++row) {
      const int64_t position = chunks[c].begin + i;
      // A preempted sequence keeps the scores it has.
      const bool scores = sequence.request.prompt_logprobs >= 0 && !sequence.prompt_reported &&
                          position + 1 < sequence.prompt_length() && position >= scored;
      const bool samples = position + 1 == sequence.length() && sequence.request.max_tokens > 0;
      if (!scores && !samples) continue;
      logit_rows_.push_back({c, position});
      rows.push_back(row);
    }
  }
  return rows;
}

std::vector<Engine::Sampled> Engine::sample(const std::vector<Chunk>& chunks) {
  std::vector<Sampled> sampled(chunks.size());
  for (size_t c = 0; c < chunks.size(); ++c) sampled[c].sequence = chunks[c].sequence;
  const auto vocab = static_cast<size_t>(weights_.config.vocab);
  const auto total = static_cast<int64_t>(logit_rows_.size());
  for (int64_t begin = 0; begin < total; begin += Forward::kLogitRows) {
    const int64_t end = std::min(begin + Forward::kLogitRows, total);
    const std::span<const float> logits = forward_.logits(begin, end);
    for (int64_t i = begin; i < end; ++i) {
      const std::span<const float> row = logits.subspan(static_cast<size_t>(i - begin) * vocab, vocab);
      const auto [c, position] = logit_rows_[static_cast<size_t>(i)];
      Sequence& sequence = *chunks[c].sequence;
      Sampled& result = sampled[c];
      result.finite = result.finite && all_finite(row);
      if (!result.finite) continue;
      const GenerateRequest& request = sequence.request;
      if (position + 1 < sequence.prompt_length()) {
        const int32_t next = sequence.tokens[static_cast<size_t>(position) + 1];
        sequence.prompt_scores.push_back(sampler_.score(row, next, request.prompt_logprobs));
        continue;
      }
      result.token = sampler_.sample(row, request.sampling, sequence.tokens, sequence.prompt_length());
      if (request.logprobs >= 0) result.logprobs = sampler_.score(row, *result.token, request.logprobs);
    }
  }
  return sampled;
}

void Engine::deliver(const std::vector<Chunk>& chunks, std::vector<Sampled> sampled) {
  for (size_t c = 0; c < chunks.size(); ++c) {
    Sequence& sequence = *chunks[c].sequence;
    sequence.computed += chunks[c].count;
    prompt_tokens_ += std::clamp<int64_t>(sequence.prompt_length() - chunks[c].begin, 0, chunks[c].count);
    if (!sampled[c].finite) {
      end(sequence.request.id,
          Failed{"non_finite", "The logits are not finite: adapter weights overflow float32"});
      continue;
    }
    if (sequence.computed < sequence.length()) continue;
    if (sequence.request.prompt_logprobs >= 0 && !sequence.prompt_reported) {
      emit(sequence.request.id, PromptScored{std::exchange(sequence.prompt_scores, {})});
      sequence.prompt_reported = true;
    }
    if (sequence.request.max_tokens == 0) {
      end(sequence.request.id, Finished{"length"});
      continue;
    }
    deliver_token(sampled[c]);
  }
}

void Engine::deliver_token(Sampled& sampled) {
  Sequence& sequence = *sampled.sequence;
  const GenerateRequest& request = sequence.request;
  const int32_t token = *sampled.token;
  ++generated_tokens_;
  if (std::find(request.stop_tokens.begin(), request.stop_tokens.end(), token) != request.stop_tokens.end()) {
    end(request.id, Finished{"stop", token, std::move(sampled.logprobs)});
    return;
  }
  sequence.tokens.push_back(token);
  emit(request.id, TokenGenerated{token, std::move(sampled.logprobs)});
  if (sequence.generated() >= request.max_tokens) end(request.id, Finished{"length"});
}

// Gives back all that the sequence holds.
void Engine::end(int64_t id, decltype(Event::what) last_event) {
  const std::unique_ptr<Sequence> sequence = scheduler_.take_out(id);
  if (!sequence) return;
  emit(id, std::move(last_event));
  if (sequence->slot < 0) return;
  const std::string revision = slots_.revision(sequence->slot);
  if (slots_.end_lease(sequence->slot)) emit(0, Freed{revision});
}

void Engine::fail_all(const std::string& code, const std::string& message) {
  const auto first_id = [this]() -> std::optional<int64_t> {
    if (!scheduler_.running().empty()) return scheduler_.running().front()->request.id;
    if (!scheduler_.waiting().empty()) return scheduler_.waiting().front()->request.id;
    return std::nullopt;
  };
  while (const std::optional<int64_t> id = first_id()) end(*id, Failed{code, message});
}

Snapshot Engine::snapshot() const {
  const std::lock_guard lock(state_);
  Snapshot s;
  s.step = steps_;
  s.epoch = epoch_;
  s.running = static_cast<int64_t>(scheduler_.running().size());
  s.waiting = static_cast<int64_t>(scheduler_.waiting().size());
  s.kv_blocks_used = kv_.used();
  s.pages_used = slots_.pages_used();
  s.slots = slots_.snapshot();
  const auto names = [](const auto& sequences) {
    std::set<std::string> found;
    for (const auto& sequence : sequences) {
      const Target& target = sequence->request.target;
      if (target.kind == Target::Kind::kAdapter) found.insert(target.name);
    }
    return std::vector<std::string>(found.begin(), found.end());
  };
  s.running_adapters = names(scheduler_.running());
  s.waiting_adapters = names(scheduler_.waiting());
  s.prompt_tokens = prompt_tokens_;
  s.generated_tokens = generated_tokens_;
  s.preemptions = scheduler_.preemptions();
  return s;
}

}  // namespace lorikeet
