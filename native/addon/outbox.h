// What the engine thread has for JavaScript, carried over by one thread-safe function. At most one call is
// under way; what comes meanwhile waits and goes with the next one, so a slow JavaScript thread gets larger
// batches.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/messages.h"

namespace lorikeet {

// The answer to a stage(). Plain data: promises live on the JavaScript thread only.
struct Settlement {
  uint64_t stage = 0;
  StageOutcome outcome;
};

class Outbox {
 public:
  struct Receiver {
    std::function<void(Napi::Env, Settlement&)> settle;
    std::function<void(Napi::Env, Napi::Function on_events, std::vector<Event>&)> deliver;
    std::function<void(Napi::Env)> finish;
  };

  static std::shared_ptr<Outbox> create(const Napi::Function& on_events);

  // JavaScript thread:
  void receive_with(Receiver receiver) { receiver_ = std::move(receiver); }
  void keep_alive(Napi::Env env, bool busy);
  // Nothing is called after this. At the end of an environment the thread-safe function belongs to Node
  // already.
  void close(bool environment_ends);

  // Any thread:
  void add(std::vector<Event> events);
  void add(Settlement settlement);
  // Nothing more will be added: `finish` is called after all the rest.
  void finish();

 private:
  static void drain(Napi::Env env, Napi::Function on_events, Outbox* outbox, void* data);
  using Signal = Napi::TypedThreadSafeFunction<Outbox, void, &Outbox::drain>;

  void notify();  // with mutex_ held

  Receiver receiver_;
  Signal signal_;
  std::mutex mutex_;
  bool closed_ = false;
  bool notified_ = false;
  bool finished_ = false;
  std::vector<Settlement> settlements_;
  std::vector<Event> events_;
};

}  // namespace lorikeet
