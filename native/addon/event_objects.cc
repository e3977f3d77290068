#include "event_objects.h"

namespace lorikeet {
namespace {

Napi::Number number(Napi::Env env, int64_t value) {
  return Napi::Number::New(env, static_cast<double>(value));
}

Napi::Array strings(Napi::Env env, const std::vector<std::string>& values) {
  const Napi::Array items = Napi::Array::New(env, values.size());
  for (size_t i = 0; i < values.size(); ++i) items.Set(static_cast<uint32_t>(i), values[i]);
  return items;
}

Napi::Object logprobs_object(Napi::Env env, const TokenLogprobs& scores) {
  const Napi::Array top = Napi::Array::New(env, scores.top.size());
  for (size_t i = 0; i < scores.top.size(); ++i) {
    const Napi::Array pair = Napi::Array::New(env, 2);
    pair.Set(0u, scores.top[i].first);
    pair.Set(1u, scores.top[i].second);
    top.Set(static_cast<uint32_t>(i), pair);
  }
  const Napi::Object object = Napi::Object::New(env);
  object.Set("logprob", scores.logprob);
  object.Set("top", top);
  return object;
}

struct FillEvent {
  Napi::Env env;
  Napi::Object& object;

  void set_logprobs(const std::optional<TokenLogprobs>& logprobs) const {
    object.Set("logprobs", logprobs ? Napi::Value(logprobs_object(env, *logprobs)) : env.Null());
  }

  void operator()(const Accepted& accepted) const {
    object.Set("type", "accepted");
    object.Set("revision",
               accepted.revision ? Napi::Value(Napi::String::New(env, *accepted.revision)) : env.Null());
    object.Set("step", number(env, accepted.step));
  }
  void operator()(const Started& started) const {
    object.Set("type", "started");
    object.Set("cachedTokens", number(env, started.cached_tokens));
  }
  void operator()(const Moved& moved) const {
    object.Set("type", "moved");
    object.Set("revision", moved.revision);
  }
  void operator()(const PromptScored& scored) const {
    object.Set("type", "prompt");
    const Napi::Array scores = Napi::Array::New(env, scored.logprobs.size());
    for (size_t i = 0; i < scored.logprobs.size(); ++i) {
      const Napi::HandleScope scope(env);
      scores.Set(static_cast<uint32_t>(i), logprobs_object(env, scored.logprobs[i]));
    }
    object.Set("logprobs", scores);
  }
  void operator()(const TokenGenerated& generated) const {
    object.Set("type", "token");
    object.Set("token", generated.token);
    set_logprobs(generated.logprobs);
  }
  void operator()(const Finished& finished) const {
    object.Set("type", "finished");
    object.Set("reason", finished.reason);
    object.Set("stopToken",
               finished.stop_token ? Napi::Value(number(env, *finished.stop_token)) : env.Null());
    set_logprobs(finished.logprobs);
  }
  void operator()(const Failed& failed) const {
    object.Set("type", "failed");
    object.Set("code", name_of(failed.code));
    object.Set("message", failed.message);
  }
  void operator()(const Freed& freed) const {
    object.Set("type", "freed");
    object.Set("revision", freed.revision);
  }
};

}  // namespace

Napi::Object event_object(Napi::Env env, const Event& event) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("id", number(env, event.id));
  std::visit(FillEvent{env, object}, event.what);
  return object;
}

Napi::Object snapshot_object(Napi::Env env, const Snapshot& s) {
  const Napi::Array slots = Napi::Array::New(env, s.slots.size());
  for (size_t i = 0; i < s.slots.size(); ++i) {
    const Napi::Object slot = Napi::Object::New(env);
    slot.Set("slot", number(env, s.slots[i].slot));
    slot.Set("revision", s.slots[i].revision);
    slot.Set("state", s.slots[i].state);
    slot.Set("leases", number(env, s.slots[i].leases));
    slot.Set("pages", number(env, s.slots[i].pages));
    slots.Set(static_cast<uint32_t>(i), slot);
  }
  const Napi::Object object = Napi::Object::New(env);
  object.Set("step", number(env, s.step));
  object.Set("epoch", number(env, s.epoch));
  object.Set("running", number(env, s.running));
  object.Set("waiting", number(env, s.waiting));
  object.Set("kvBlocksUsed", number(env, s.kv_blocks_used));
  object.Set("pagesUsed", number(env, s.pages_used));
  object.Set("slots", slots);
  object.Set("runningAdapters", strings(env, s.running_adapters));
  object.Set("waitingAdapters", strings(env, s.waiting_adapters));
  object.Set("promptTokens", number(env, s.prompt_tokens));
  object.Set("generatedTokens", number(env, s.generated_tokens));
  object.Set("preemptions", number(env, s.preemptions));
  object.Set("prefixTokensQueried", number(env, s.prefixes.queried));
  object.Set("prefixTokensHit", number(env, s.prefixes.hit));
  const Napi::Object phases = Napi::Object::New(env);
  for (const PhaseTime& phase : s.phases) phases.Set(phase.name, phase.ms);
  object.Set("phasesMs", phases);
  return object;
}

Napi::Object info_object(Napi::Env env, const EngineInfo& info) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("backend", info.backend);
  object.Set("dtype", info.dtype == Dtype::kF32 ? "float32" : "bfloat16");
  const Napi::Object memory = Napi::Object::New(env);
  memory.Set("weights", number(env, info.memory.weights));
  memory.Set("kv", number(env, info.memory.kv));
  memory.Set("pages", number(env, info.memory.pages));
  memory.Set("activations", number(env, info.memory.activations));
  memory.Set("graphs", number(env, info.memory.graphs));
  object.Set("memoryBytes", memory);
  object.Set("slots", number(env, info.slots));
  object.Set("pages", number(env, info.pages));
  object.Set("kvBlocks", number(env, info.kv_blocks));
  object.Set("blockTokens", number(env, kBlockTokens));
  return object;
}

Napi::Object report_object(Napi::Env env, const StageReport& report) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("slot", report.slot ? Napi::Value(number(env, *report.slot)) : env.Null());
  object.Set("pages", number(env, report.pages));
  object.Set("zeroEffect", report.zero_effect);
  object.Set("evicted", strings(env, report.evicted));
  object.Set("packMs", report.pack_ms);
  object.Set("rounded", number(env, report.rounded));
  return object;
}

Napi::Object switched_object(Napi::Env env, const Switched& switched) {
  const Napi::Object object = Napi::Object::New(env);
  object.Set("step", number(env, switched.step));
  object.Set("epoch", number(env, switched.epoch));
  return object;
}

}  // namespace lorikeet
