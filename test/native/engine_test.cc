// What JavaScript cannot see or provoke: a step that throws, the contents of
// freed pages. Over a tiny model.
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <future>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "executor/cpu/cpu_executor.h"

namespace {

using namespace lorikeet;

// The reference executor, with something around each step.
class WrappedExecutor : public Executor {
 public:
  using Around = std::function<void(const std::function<void()>& step)>;
  WrappedExecutor(const ExecutorOptions& options, Around around)
      : inner_(cpu::open_reference(options)), around_(std::move(around)) {}

  const ExecutorLimits& limits() const override { return inner_->limits(); }
  void step(const StepPlan& plan, StepResult& result, const std::function<void()>& meanwhile) override {
    around_([&] { inner_->step(plan, result, meanwhile); });
  }
  Staged stage(const StagePlan& plan, std::span<const std::byte> body) override {
    return inner_->stage(plan, body);
  }
  void poison(int slot) override { inner_->poison(slot); }
  std::vector<PhaseTime> phases() const override { return inner_->phases(); }

 private:
  std::unique_ptr<Executor> inner_;
  Around around_;
};

void require(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  std::exit(1);
}

// One layer, hidden 8, 2 heads of 4, 1 KV head, ffn 12, 16 tokens; all weights
// are read from one block of floats.
ModelDescriptor tiny_model(const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  for (int i = 0; i < 1024; ++i) {
    const float value = 0.1f * static_cast<float>(i * 37 % 19 - 9);
    file.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  const auto tensor = [](std::vector<int64_t> shape) {
    int64_t bytes = sizeof(float);
    for (const int64_t side : shape) bytes *= side;
    return FileTensor{0, 0, bytes, Dtype::kF32, std::move(shape)};
  };
  ModelDescriptor model;
  model.config = {1, 8, 2, 1, 4, 12, 16, 256, 1e-5f, {1.0f, 0.1f}, 1.0f};
  model.files = {path};
  model.embed = model.head = tensor({16, 8});
  model.norm = tensor({8});
  LayerTensors layer;
  layer.input_norm = layer.post_attention_norm = tensor({8});
  layer.q = layer.o = tensor({8, 8});
  layer.k = layer.v = tensor({4, 8});
  layer.gate = layer.up = tensor({12, 8});
  layer.down = tensor({8, 12});
  model.layers = {layer};
  return model;
}

GenerateRequest request(int64_t id) {
  GenerateRequest r;
  r.id = id;
  r.prompt = {1, 2, 3};
  r.max_tokens = 200;
  return r;
}

class Log {
 public:
  void add(std::vector<Event> events) {
    const std::lock_guard lock(mutex_);
    for (Event& event : events) {
      if (const auto* failure = std::get_if<Failed>(&event.what)) failures_.push_back(failure->code);
    }
    changed_.notify_all();
  }
  std::vector<ErrorCode> wait_for_failures(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return failures_.size() >= count; });
    return failures_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<ErrorCode> failures_;
};

void a_failed_step_ends_service(const std::string& path) {
  const ExecutorOptions device{tiny_model(path), 2, 8, 1 << 16, 8, 16, 1, Compute::kAuto, {}};
  Log log;
  const auto fails = [left = 10](const std::function<void()>& step) mutable {
    if (left-- == 0) throw std::runtime_error("the device is gone");
    step();
  };
  Engine engine({device.model.config, 2, 8, 1, 16, 8}, std::make_unique<WrappedExecutor>(device, fails),
                [&](std::vector<Event> events) { log.add(std::move(events)); });

  engine.submit(request(1));  // runs when the step fails
  engine.submit(request(2));  // waits
  require(log.wait_for_failures(3) == std::vector<ErrorCode>(3, ErrorCode::kEngineFailed),
          "running and waiting fail, and the engine itself");
  engine.submit(request(3));
  require(log.wait_for_failures(4).back() == ErrorCode::kEngineFailed, "later requests fail");

  const std::vector<float> factors(128, 0.5f);
  const StageRequest revision{
      "sha256:a", std::as_bytes(std::span(factors)), {StageModule{0, Module::kQ, 2, 1.0f, 0, 64}}};
  ErrorCode staging{};
  try {
    engine.stage(revision, [](const StageOutcome&) {});
  } catch (const EngineError& error) {
    staging = error.code();
  }
  require(staging == ErrorCode::kEngineFailed, "staging fails");

  const Snapshot snapshot = engine.snapshot();
  require(snapshot.running == 0 && snapshot.waiting == 0 && snapshot.kv_blocks_used == 0, "nothing is held");
  require(snapshot.step > 0, "the snapshot still tells");

  std::promise<void> closed;
  engine.close([&] { closed.set_value(); });
  closed.get_future().wait();
  engine.join();
}

void tokens_go_out_while_the_next_step_runs(const std::string& path) {
  const ExecutorOptions device{tiny_model(path), 2, 8, 1 << 16, 8, 16, 1, Compute::kAuto, {}};
  std::string order;  // of the engine's thread, and read when it has ended
  const auto observed = [&order](const std::function<void()>& step) {
    order += '(';
    step();
    order += ')';
  };
  std::promise<void> finished;
  Engine engine({device.model.config, 2, 8, 1, 16, 8}, std::make_unique<WrappedExecutor>(device, observed),
                [&](const std::vector<Event>& events) {
                  order += 'e';
                  if (std::holds_alternative<Finished>(events.back().what)) finished.set_value();
                });
  GenerateRequest three = request(1);
  three.max_tokens = 3;
  engine.submit(three);
  finished.get_future().wait();
  std::promise<void> closed;
  engine.close([&] { closed.set_value(); });
  closed.get_future().wait();
  engine.join();
  require(order == "e()(e)(e)e", "accepted, then each token amid the next step, the last one at once");
}

// All of a push within one step; a request that is taken in after it gets the revision.
void adapters_change_while_a_step_runs(const std::string& path) {
  const ExecutorOptions device{tiny_model(path), 2, 8, 1 << 16, 8, 16, 1, Compute::kAuto, {}};
  const std::vector<float> factors(128, 0.5f);
  const auto push = [&](Engine& engine, const std::string& revision) {
    const StageRequest request{
        revision, std::as_bytes(std::span(factors)), {StageModule{0, Module::kQ, 2, 1.0f, 0, 64}}};
    std::promise<void> staged;
    engine.stage(request, [&](const StageOutcome&) { staged.set_value(); });
    staged.get_future().wait();
    return engine.activate("poet", revision, false);
  };
  Engine* pushed_into = nullptr;
  int64_t step = 0;
  Switched switched;
  const auto amid_the_second = [&](const std::function<void()>& run) {
    if (++step == 2) {
      push(*pushed_into, "sha256:a");
      switched = push(*pushed_into, "sha256:b");
      require(pushed_into->release("sha256:a") == 0, "nobody leases what was superseded");
    }
    run();
  };
  std::string taken;
  std::promise<void> accepted;
  Engine engine({device.model.config, 2, 8, 1, 16, 8},
                std::make_unique<WrappedExecutor>(device, amid_the_second),
                [&](const std::vector<Event>& events) {
                  for (const Event& event : events) {
                    const auto* known = std::get_if<Accepted>(&event.what);
                    if (event.id != 2 || !known) continue;
                    taken = known->revision.value_or("");
                    accepted.set_value();
                  }
                });
  pushed_into = &engine;
  engine.submit(request(1));
  while (engine.snapshot().step < 2) std::this_thread::yield();
  GenerateRequest later = request(2);
  later.target = {Target::Kind::kAdapter, "poet"};
  engine.submit(later);
  accepted.get_future().wait();
  std::promise<void> closed;
  engine.close([&] { closed.set_value(); });
  closed.get_future().wait();
  engine.join();
  require(switched.step == 3 && switched.epoch == 2, "the step after the one that runs serves the change");
  require(taken == "sha256:b", "a later request gets what was activated");
}

// Of two changes within one step the later one says what becomes of what runs.
void what_runs_does_what_the_last_change_says(const std::string& path) {
  const ExecutorOptions device{tiny_model(path), 3, 8, 1 << 16, 8, 16, 1, Compute::kAuto, {}};
  const std::vector<float> factors(128, 0.5f);
  const auto push = [&](Engine& engine, const std::string& revision, bool migrates) {
    const StageRequest request{
        revision, std::as_bytes(std::span(factors)), {StageModule{0, Module::kQ, 2, 1.0f, 0, 64}}};
    std::promise<void> staged;
    engine.stage(request, [&](const StageOutcome&) { staged.set_value(); });
    staged.get_future().wait();
    engine.activate("poet", revision, migrates);
  };
  Engine* pushed_into = nullptr;
  int64_t step = 0;
  const auto amid_the_second = [&](const std::function<void()>& run) {
    if (++step == 2) {
      push(*pushed_into, "sha256:b", true);
      push(*pushed_into, "sha256:c", false);
    }
    run();
  };
  std::promise<void> finished;
  bool moved = false;
  Engine engine({device.model.config, 3, 8, 1, 16, 8},
                std::make_unique<WrappedExecutor>(device, amid_the_second),
                [&](const std::vector<Event>& events) {
                  for (const Event& event : events) {
                    moved = moved || std::holds_alternative<Moved>(event.what);
                    if (std::holds_alternative<Finished>(event.what)) finished.set_value();
                  }
                });
  pushed_into = &engine;
  push(engine, "sha256:a", false);
  GenerateRequest running = request(1);
  running.target = {Target::Kind::kAdapter, "poet"};
  running.max_tokens = 8;
  engine.submit(running);
  finished.get_future().wait();
  std::promise<void> closed;
  engine.close([&] { closed.set_value(); });
  closed.get_future().wait();
  engine.join();
  require(!moved, "it finishes, as the last change says");
}

// The first column of a rank of A.
float first_of(const cpu::Factor& page, int64_t rank) {
  return static_cast<const float*>(page.a.data)[panel_index(page.a.dtype, page.a.cols, rank, 0)];
}

void freed_pages_are_poisoned(const std::string& path) {
  const ModelConfig config = tiny_model(path).config;
  cpu::AdapterPages memory(config, Dtype::kF32, 1, 32);
  SlotPool pool({1, config.layers, {2, 2, 2, 2, 2, 2}}, [&](int slot) { memory.poison(slot); });
  const std::vector<StageModule> modules = {{0, Module::kV, 18, 1.0f, 0, 0}};
  const std::vector<float> factors(18 * 8, 1.0f);
  const SlotPool::Reservation reserved = *pool.reserve("sha256:a", modules);
  require(reserved.page_count == 2, "18 ranks take two pages");
  memory.write({reserved.slot, modules, reserved.pages}, std::as_bytes(std::span(factors)));
  const cpu::Factor pages[] = {memory.factor(reserved.slot, 0, Module::kV, 0),
                               memory.factor(reserved.slot, 0, Module::kV, 1)};
  pool.make_ready(reserved.slot, false, 0);
  pool.lease(reserved.slot);
  pool.release(reserved.slot);
  require(first_of(pages[0], 0) == 1.0f, "a leased page keeps its contents");

  require(pool.end_lease(reserved.slot), "the last lease frees");
  for (const cpu::Factor& page : pages) {
    for (int64_t rank = 0; rank < kPageRanks; ++rank) {
      require(std::isnan(first_of(page, rank)), "each row of a freed page begins with a NaN");
    }
  }
  require(pool.pages_used() == 0 && !pool.find("sha256:a"), "nothing is left");
}

}  // namespace

int main() {
  const std::string path = "/tmp/lorikeet-tiny-" + std::to_string(::getpid());
  a_failed_step_ends_service(path);
  tokens_go_out_while_the_next_step_runs(path);
  adapters_change_while_a_step_runs(path);
  what_runs_does_what_the_last_change_says(path);
  freed_pages_are_poisoned(path);
  std::remove(path.c_str());
  std::printf("5 passed\n");
  return 0;
}
