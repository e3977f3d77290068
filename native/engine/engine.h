// The engine: one thread that owns scheduler, KV blocks and slot pool, and asks an executor for steps.
// Callers of any thread put requests into its inbox and hear of them through the event sink. Adapters change
// at once, also while a step runs, which reads what its sequences lease; a request leases its revision when
// it is submitted and is taken in between two steps. Tensors are written on the packer's thread.
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
  void cancel(int64_t id) { inbox_.put(Cancel{id}); }
  void stage(StageRequest request, StageReply reply);
  // Where `migrates`, running requests of the adapter that leave it to the activation go on with the
  // revision.
  Switched activate(const std::string& adapter, const std::string& revision, bool migrates);
  Switched deactivate(const std::string& adapter);
  // Returns how many leases the revision still has.
  int64_t release(const std::string& revision);
  Snapshot snapshot() const;
  // Later requests find nothing of what was computed so far.
  void reset_prefix_cache() { state_.lock()->kv.forget(); }

  // Fails what is under way with `closing` and ends the thread. `done` is the last thing it calls.
  void close(std::function<void()> done) { inbox_.put(Close{std::move(done)}); }
  void join();

 private:
  // What an adapter's name means.
  struct Current {
    std::string revision;
    int64_t migrates = 0;  // sequences of an earlier epoch go on with it, where they leave that to it
  };
  // The engine thread holds the lock between two steps only. A step itself reads the sequences of its chunks
  // and the slots that they lease without it, for nobody changes those meanwhile.
  struct State {
    State(const EngineOptions& options, Executor& executor);

    // Throws where the engine serves nobody any more.
    void require_service() const;
    // The change just made is seen by requests that are taken in before this step.
    Switched switched() const { return {steps + (stepping ? 2 : 1), epoch}; }
    // The slot that serves a target, -1 for the base. Throws what the request fails with.
    int resolve(const Target& target) const;
    // Sequences whose adapter has another revision by now go on with that one, if they are to.
    void move_on();
    void move_on(Sequence& sequence);
    void emit(int64_t id, decltype(Event::what) what) { events.push_back({id, std::move(what)}); }
    // Gives back all that the sequence holds.
    void end(int64_t id, decltype(Event::what) last_event);
    void end(const Sequence& sequence, decltype(Event::what) last_event);
    void poison(const std::string& message);
    void fail_all(ErrorCode code, const std::string& message);
    void deliver(const Chunk& chunk, const std::vector<RowResult*>& results);
    void deliver_token(Sequence& sequence, RowResult& sampled);

    KvBlocks kv;
    SlotPool slots;
    Scheduler scheduler;
    Staging staging;
    std::unordered_map<std::string, Current> current;  // by adapter
    int64_t steps = 0;
    bool stepping = false;
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
  std::vector<Chunk> schedule();
  void step(std::vector<Chunk>& chunks);
  void flush();

  void apply(State& state, Submit& command);
  void apply(State& state, Cancel& command);
  void apply(State& state, Fail& command);
  void apply(State& state, Close& command);

  void check(const GenerateRequest& request) const;
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
