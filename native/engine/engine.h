// The engine: one thread that owns scheduler, KV blocks and slot pool, and asks an executor for steps.
// Callers of any thread put commands into its inbox; it answers through replies and the event sink, called
// between two steps. Only staging goes on beside a step, on the packer's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "executor/executor.h"
#include "guarded.h"
#include "inbox.h"
#include "kv_blocks.h"
#include "messages.h"
#include "packer.h"
#include "plan_builder.h"
#include "scheduler.h"
#include "slot_pool.h"
#include "staging.h"

namespace lorikeet {

class Engine {
 public:
  using EventSink = std::function<void(std::vector<Event>)>;

  Engine(const EngineOptions& options, std::unique_ptr<Executor> executor, EventSink sink);
  // Close and wait for it first.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  EngineInfo info() const;

  // Throw invalid_argument where the request can never be served.
  void submit(GenerateRequest request);
  void stage(StageRequest request, Reply<StageReport> reply);
  void cancel(int64_t id) { inbox_.put(Cancel{id}); }
  void activate(std::string adapter, std::string revision, Reply<Switched> reply);
  void deactivate(std::string adapter, Reply<Switched> reply);
  void release(std::string revision, Reply<int64_t> reply);
  Snapshot snapshot() const;

  // Fails what is under way with `closing` and ends the thread. `done` is the last thing it calls.
  void close(std::function<void()> done) { inbox_.put(Close{std::move(done)}); }
  void join();

 private:
  // What changes between two steps: for the engine thread, snapshot() and staging. A step itself reads the
  // sequences of its chunks without the lock, for nobody changes those meanwhile.
  struct State {
    State(const EngineOptions& options, Executor& executor);

    // The slot that serves a target, -1 for the base. Throws what the request fails with.
    int resolve(const Target& target) const;
    void emit(int64_t id, decltype(Event::what) what) { events.push_back({id, std::move(what)}); }
    // Gives back all that the sequence holds.
    void end(int64_t id, decltype(Event::what) last_event);
    void poison(const std::string& message);
    void fail_all(ErrorCode code, const std::string& message);
    void deliver(const Chunk& chunk, const std::vector<RowResult*>& results);
    void deliver_token(Sequence& sequence, RowResult& sampled);

    KvBlocks kv;
    SlotPool slots;
    Scheduler scheduler;
    Staging staging;
    std::unordered_map<std::string, std::string> current;  // adapter → revision
    int64_t steps = 0;
    int64_t epoch = 0;
    int64_t prompt_tokens = 0;
    int64_t generated_tokens = 0;
    std::string poisoned_by;  // message of the failure that ended all service; empty while healthy
    std::function<void()> closed;
    std::vector<Event> events;  // until the next flush()
  };
  // Of the engine thread alone.
  struct Stepping {
    PlanBuilder builder;
    StepResult result;
  };

  void run();
  bool take_commands();
  void step(std::vector<Chunk>& chunks);
  void flush();

  void apply(State& state, Submit& command);
  void apply(State& state, Cancel& command);
  void apply(State& state, Stage& command);
  void apply(State& state, Activate& command);
  void apply(State& state, Deactivate& command);
  void apply(State& state, Release& command);
  void apply(State& state, Fail& command);
  void apply(State& state, Close& command);

  void check(const StageRequest& request) const;

  const EngineOptions options_;
  const std::unique_ptr<Executor> executor_;
  const EventSink sink_;
  Inbox inbox_;
  Guarded<State> state_;
  Stepping stepping_;
  std::unique_ptr<Packer> packer_;
  std::thread thread_;
};

}  // namespace lorikeet
