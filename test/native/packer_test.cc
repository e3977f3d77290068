// Memory that ends while a revision is staged, which JavaScript cannot provoke. Over an executor that
// computes nothing.
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <new>
#include <string>
#include <variant>
#include <vector>

#include "engine/engine.h"

namespace {

// Allocations of this thread until one fails; none does while it is negative.
thread_local int allocations_left = -1;

}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

using namespace lorikeet;

class IdleExecutor : public Executor {
 public:
  IdleExecutor() {
    limits_.kv_blocks = 4;
    limits_.pages.fill(1);
  }
  // The next page is written, or freed, when memory has run out.
  void run_out_while_writing() { writes_ = false; }
  void run_out_while_freeing() { frees_ = false; }

  const ExecutorLimits& limits() const override { return limits_; }
  void step(const StepPlan&, StepResult&, const std::function<void()>& meanwhile) override { meanwhile(); }
  Staged stage(const StagePlan&, std::span<const std::byte>) override {
    if (!std::exchange(writes_, true)) throw std::bad_alloc();
    return {};
  }
  void poison(int) override {
    if (!std::exchange(frees_, true)) throw std::bad_alloc();
  }
  std::vector<PhaseTime> phases() const override { return {}; }

 private:
  ExecutorLimits limits_;
  bool writes_ = true, frees_ = true;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// One slot, and an adapter of one page.
class OneSlotEngine {
 public:
  OneSlotEngine() : OneSlotEngine(std::make_unique<IdleExecutor>()) {}
  ~OneSlotEngine() {
    std::promise<void> closed;
    engine_.close([&] { closed.set_value(); });
    closed.get_future().wait();
  }

  IdleExecutor& executor() { return executor_; }
  std::vector<SlotSnapshot> slots() const { return engine_.snapshot().slots; }

  StageOutcome stage(const std::string& revision) {
    const StageRequest request{
        revision, std::as_bytes(std::span(factors_)), {StageModule{0, Module::kQ, 2, 1.0f, 0, 64}}};
    std::promise<StageOutcome> outcome;
    engine_.stage(request, [&](StageOutcome o) { outcome.set_value(std::move(o)); });
    return outcome.get_future().get();
  }

 private:
  explicit OneSlotEngine(std::unique_ptr<IdleExecutor> executor)
      : executor_(*executor), engine_(options(), std::move(executor), [](const std::vector<Event>&) {}) {}
  static EngineOptions options() {
    ModelConfig config;
    config.layers = 1;
    config.hidden = 8;
    config.heads = 2;
    config.kv_heads = 1;
    config.head_dim = 4;
    config.ffn = 12;
    config.vocab = 16;
    config.context = 64;
    return {config, 1, 8, 1, 16, 8};
  }

  const std::vector<float> factors_ = std::vector<float>(128, 0.5f);
  IdleExecutor& executor_;
  Engine engine_;
};

bool is_refused_for_memory(const StageOutcome& outcome) {
  const auto* error = std::get_if<EngineError>(&outcome);
  return error != nullptr && error->code() == ErrorCode::kNoCapacity;
}

void memory_may_end_while_pages_are_written() {
  OneSlotEngine engine;
  engine.executor().run_out_while_writing();
  require(is_refused_for_memory(engine.stage("a")), "the revision is refused");
  require(engine.slots().empty(), "its slot is free again");
  require(std::holds_alternative<StageReport>(engine.stage("a")), "the engine goes on");
}

void memory_may_end_while_a_slot_is_taken() {
  OneSlotEngine engine;
  engine.stage("a");
  engine.executor().run_out_while_freeing();
  require(is_refused_for_memory(engine.stage("b")), "the revision is refused");
  require(engine.slots().at(0).revision == "a", "nobody is evicted for it");
  require(std::holds_alternative<StageReport>(engine.stage("b")), "the engine goes on");
}

void a_slot_is_taken_wholly_or_not_at_all() {
  SlotPool pool({2, 1, {2, 2, 2, 2, 2, 2}}, [](int) {});
  const std::vector<StageModule> modules = {{0, Module::kQ, 2, 1.0f, 0, 0}, {0, Module::kO, 20, 1.0f, 0, 0}};
  const std::string revision(71, 'a');  // as long as a digest, so that it needs memory
  int failures = 0;
  for (bool is_taken = false; !is_taken; allocations_left = -1) {
    allocations_left = failures;
    try {
      pool.reserve(revision, modules);
      is_taken = true;
    } catch (const std::bad_alloc&) {
      allocations_left = -1;
      ++failures;
      require(pool.pages_used() == 0 && pool.snapshot().empty() && !pool.find(revision), "nothing is taken");
    }
  }
  require(failures > 3 && pool.pages_used() == 3, "in the end all is taken");
}

}  // namespace

int main() {
  memory_may_end_while_pages_are_written();
  memory_may_end_while_a_slot_is_taken();
  a_slot_is_taken_wholly_or_not_at_all();
  std::printf("3 passed\n");
  return 0;
}
