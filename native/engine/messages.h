// What crosses the engine's door: requests in, events and replies out (native/types.ts in C++).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "executor/error.h"
#include "executor/executor.h"

namespace lorikeet {

struct EngineOptions {
  ModelConfig config;
  int64_t slots = 0;
  int64_t max_rank = 0;
  int64_t max_batch = 0;
  int64_t max_batch_tokens = 0;
  int64_t max_waiting = 0;
  bool prefix_cache = true;
};

struct EngineInfo {
  std::string backend;
  Dtype dtype = Dtype::kF32;
  MemoryBytes memory;
  int64_t slots = 0;
  int64_t pages = 0;
  int64_t kv_blocks = 0;
};

struct Target {
  enum class Kind : uint8_t { kBase, kAdapter, kRevision };
  Kind kind = Kind::kBase;
  std::string name;  // of the adapter, or the revision's digest
};

// What becomes of a request whose adapter gets another revision.
enum class Policy : uint8_t {
  kActivation,  // what the activation says
  kPin,         // ends on the revision that it began with
  kLatest       // goes on with the new one from the next step on
};

struct GenerateRequest {
  int64_t id = 0;
  std::vector<int32_t> prompt;
  Target target;
  int64_t max_tokens = 0;
  std::vector<int32_t> stop_tokens;
  SamplingParams sampling;
  int64_t logprobs = -1;
  int64_t prompt_logprobs = -1;
  int64_t prompt_logprobs_from = 1;  // the first prompt token to report
  float lora_scale = 1;
  Policy policy = Policy::kActivation;
  std::string cache_salt;  // requests share keys and values with those of the same salt only
  int64_t group = 0;       // those of one take turns with those of others

  // Whether prompt tokens are scored as if they were drawn, those before the first one being the prompt.
  bool scores_as_drawn() const {
    return max_tokens == 0 && sampling.logprobs_mode == LogprobsMode::kProcessed;
  }
};

struct Accepted {
  std::optional<std::string> revision;
  int64_t step = 0;
};
struct PromptScored {
  std::vector<TokenLogprobs> logprobs;
};
// The first step is done.
struct Started {
  int64_t cached_tokens = 0;  // of the prompt, whose keys and values were there already
};
// The tokens that follow are of this revision.
struct Moved {
  std::string revision;
};
struct TokenGenerated {
  int32_t token = 0;
  std::optional<TokenLogprobs> logprobs;
};
struct Finished {
  const char* reason = "";  // "stop", "length", "cancelled"
  std::optional<int32_t> stop_token{};
  std::optional<TokenLogprobs> logprobs{};  // of the stop token, where they were asked for
};
struct Failed {
  ErrorCode code = ErrorCode::kEngineFailed;
  std::string message;
};
struct Freed {
  std::string revision;
};

struct Event {
  int64_t id = 0;
  std::variant<Accepted, Started, Moved, PromptScored, TokenGenerated, Finished, Failed, Freed> what;
};

struct StageRequest {
  std::string revision;
  std::span<const std::byte> body;  // the caller keeps it alive and unchanged until the reply
  std::vector<StageModule> modules;
};

struct StageReport {
  std::optional<int> slot;  // none: the revision was inspected, but no slot is free for it
  int64_t pages = 0;
  bool zero_effect = false;
  std::vector<std::string> evicted;
  double pack_ms = 0;
  int64_t rounded = 0;  // tensors
};

// The first step that serves a change, and the number of changes.
struct Switched {
  int64_t step = 0;
  int64_t epoch = 0;
};

using StageOutcome = std::variant<StageReport, EngineError>;
// Called exactly once, on the caller's thread or one of the engine.
using StageReply = std::function<void(StageOutcome)>;

struct SlotSnapshot {
  int64_t slot = 0;
  std::string revision;
  const char* state = "";  // "staging", "ready", "retired"
  int64_t leases = 0;
  int64_t pages = 0;
};

// Tokens of prompts that were looked up in the prefix cache, and those that were found.
struct PrefixCounts {
  int64_t queried = 0, hit = 0;
};

struct Snapshot {
  int64_t step = 0;
  int64_t epoch = 0;
  int64_t running = 0;
  int64_t waiting = 0;
  int64_t kv_blocks_used = 0;
  int64_t pages_used = 0;
  std::vector<SlotSnapshot> slots;
  std::vector<std::string> running_adapters, waiting_adapters;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  PrefixCounts prefixes;
  std::vector<PhaseTime> phases;
};

}  // namespace lorikeet
