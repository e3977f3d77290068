// The `Engine` object of native/types.ts. Lives on the JavaScript thread.
#pragma once

#include <napi.h>

#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "engine/engine.h"
#include "outbox.h"

namespace lorikeet {

class EngineHandle : public Napi::ObjectWrap<EngineHandle> {
 public:
  static Napi::Function define(Napi::Env env);

  explicit EngineHandle(const Napi::CallbackInfo& info);
  ~EngineHandle() override;

 private:
  // A stage() under way. `body` keeps the caller's buffer until the engine has answered.
  struct Staged {
    Napi::Promise::Deferred deferred;
    Napi::Reference<Napi::Value> body;
  };

  Napi::Value stage(const Napi::CallbackInfo& info);
  Napi::Value activate(const Napi::CallbackInfo& info);
  Napi::Value deactivate(const Napi::CallbackInfo& info);
  Napi::Value release(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);
  void submit(const Napi::CallbackInfo& info);
  void reset_prefix_cache(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value snapshot(const Napi::CallbackInfo& info);

  template <typename Work>
  Napi::Value promise(Napi::Env env, Work work);
  void require_open() const;
  void settle(Napi::Env env, Settlement& settlement);
  void deliver(Napi::Env env, Napi::Function on_events, std::vector<Event>& events);
  void finish_close(Napi::Env env);
  void stop(bool environment_ends);
  void update_keep_alive(Napi::Env env);
  static void at_environment_end(void* handle);

  std::unique_ptr<Engine> engine_;
  std::shared_ptr<Outbox> outbox_;
  std::unordered_map<uint64_t, Staged> stages_;
  std::unordered_set<int64_t> live_;  // requests whose last event has not been delivered
  uint64_t next_stage_ = 0;
  bool closing_ = false;
  bool closed_ = false;
  bool kept_alive_ = false;
  std::vector<Napi::Promise::Deferred> closers_;
};

}  // namespace lorikeet
