// The engine: one thread that owns scheduler, KV blocks, slot pool and sampler. Callers of any thread put
// commands into its inbox; it answers through replies and the event sink, called between two steps. Only staging
// goes on beside a step, on the packer's thread.
#pragma once

#include <atomic>
#include <functional>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <vector>

#include "forward.h"
#include "inbox.h"
#include "kv_blocks.h"
#include "messages.h"
#include "packer.h"
#include "sampler.h"
#include "scheduler.h"
#include "slot_pool.h"
#include "threads.h"
#include "weights.h"

namespace lorikeet {

class Engine {
 public:
  using EventSink = std::function<void(std::vector<Event>)>;

  Engine(const EngineOptions& options, EventSink sink);
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
  // What one step found out about a sequence.
  struct Sampled {
    Sequence* sequence = nullptr;
    std::optional<int32_t> token;
    std::optional<TokenLogprobs> logprobs;
    bool finite = true;
  };
  // A row whose logits are wanted: to score the prompt token after it, or to sample.
  struct LogitRow {
    size_t chunk = 0;
    int64_t position = 0;
  };
  // A revision on its way into pages, and the callers of stage() that wait for it.
  struct Staging {
    std::vector<Reply<StageReport>> replies;
    StageReport report;
    bool released = false;
  };

  void run();
  bool take_commands();
  void step(const std::vector<Chunk>& chunks);
  std::vector<int32_t> logit_rows(const std::vector<Chunk>& chunks);
  std::vector<Sampled> sample(const std::vector<Chunk>& chunks);
  void deliver(const std::vector<Chunk>& chunks, std::vector<Sampled> sampled);
  void deliver_token(Sampled& sampled);
  void fail_all(const std::string& code, const std::string& message);
  void flush();

  void apply(Submit& command);
  void apply(Cancel& command);
  void apply(Stage& command);
  void apply(Inspected& inspected);
  void apply(Packed& packed);
  void apply(Activate& command);
  void apply(Deactivate& command);
  void apply(Release& command);
  void apply(Close& command);

  int resolve(const Target& target) const;
  void end(int64_t id, decltype(Event::what) last_event);
  void emit(int64_t id, decltype(Event::what) what) { events_.push_back({id, std::move(what)}); }
  void check(const StageRequest& request) const;
  void end_staging(const std::string& revision, const std::optional<EngineError>& error);

  const EngineOptions options_;
  const Weights weights_;
  EventSink sink_;
  Inbox inbox_;
  Threads threads_;

  // Guards what the engine thread changes between two steps, against snapshot() and against staging.
  mutable std::mutex state_;
  KvBlocks kv_;
  SlotPool slots_;
  Scheduler scheduler_;
  std::unordered_map<std::string, std::string> current_;  // adapter → revision
  int64_t steps_ = 0;
  int64_t epoch_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t generated_tokens_ = 0;
  std::unordered_map<std::string, Staging> staging_;  // by revision
  std::function<void()> closed_;

  // Of the engine thread alone.
  Forward forward_;
  Sampler sampler_;
  std::vector<LogitRow> logit_rows_;
  std::vector<Event> events_;
  std::string poisoned_by_;  // message of the failure that ended all service; empty while healthy

  std::unique_ptr<Packer> packer_;
  std::thread thread_;
};

}  // namespace lorikeet
