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

#include "error.h"
#include "model.h"

namespace lorikeet {

struct EngineOptions {
  ModelDescriptor model;
  const Ops* ops = nullptr;
  int64_t slots = 0;
  int64_t max_rank = 0;
  int64_t kv_bytes = 0;
  int64_t max_batch = 0;
  int64_t max_batch_tokens = 0;
  int64_t max_waiting = 0;
  int threads = 1;
};

struct EngineInfo {
  std::string backend;
  int64_t slots = 0;
  int64_t pages = 0;
  int64_t kv_blocks = 0;
};

struct Target {
  enum class Kind : uint8_t { kBase, kAdapter, kRevision };
  Kind kind = Kind::kBase;
  std::string name;  // of the adapter, or the revision's digest
};

struct SamplingParams {
  double temperature = 0;
  double top_p = 1;
  int64_t top_k = 0;
  double min_p = 0;
  uint64_t seed = 0;
  double presence_penalty = 0;
  double frequency_penalty = 0;
  double repetition_penalty = 1;
  std::vector<std::pair<int32_t, float>> logit_bias;

  bool changes_logits() const {
    return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1 || !logit_bias.empty();
  }
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
  float lora_scale = 1;
};

struct TokenLogprobs {
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;
};

struct Accepted {
  std::optional<std::string> revision;
  int64_t step = 0;
};
struct PromptScored {
  std::vector<TokenLogprobs> logprobs;
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
  std::string code;
  std::string message;
};
struct Freed {
  std::string revision;
};

struct Event {
  int64_t id = 0;
  std::variant<Accepted, PromptScored, TokenGenerated, Finished, Failed, Freed> what;
};

struct StageModule {
  int64_t layer = 0;
  Module module = Module::kQ;
  int64_t rank = 0;
  float scale = 0;
  int64_t a_offset = 0, b_offset = 0;
  Dtype a_dtype = Dtype::kF32, b_dtype = Dtype::kF32;
};

struct StageRequest {
  std::string revision;
  std::span<const std::byte> body;  // the caller keeps it alive and unchanged until the reply
  std::vector<StageModule> modules;
};

struct StageReport {
  int64_t slot = 0;
  int64_t pages = 0;
  bool zero_effect = false;
  std::vector<std::string> evicted;
  double pack_ms = 0;
};

struct Switched {
  int64_t step = 0;
  int64_t epoch = 0;
};

template <typename T>
using Outcome = std::variant<T, EngineError>;
// Called exactly once, on a thread of the engine.
template <typename T>
using Reply = std::function<void(Outcome<T>)>;

struct SlotSnapshot {
  int64_t slot = 0;
  std::string revision;
  const char* state = "";  // "staging", "ready", "retired"
  int64_t leases = 0;
  int64_t pages = 0;
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
};

}  // namespace lorikeet
