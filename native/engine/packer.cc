#include "packer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>

#include "kernels/dtypes.h"

namespace lorikeet {
namespace {

struct Contents {
  bool finite = false;
  bool zero = false;
};

// Magnitudes, which are the bits without the sign, from `limit` on are infinite or NaN.
template <typename Bits>
Contents contents(const std::byte* data, int64_t n, Bits limit) {
  constexpr auto kMagnitude = static_cast<Bits>(static_cast<Bits>(~Bits{0}) >> 1);
  Bits largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    largest = std::max<Bits>(largest, bits & kMagnitude);
  }
  return {largest < limit, largest == 0};
}

// `stored`: the pages' type. The largest float32 numbers round to an infinite bf16.
Contents contents(const std::byte* data, int64_t n, Dtype dtype, Dtype stored) {
  switch (dtype) {
    case Dtype::kF16: return contents<uint16_t>(data, n, 0x7c00);
    case Dtype::kBF16: return contents<uint16_t>(data, n, 0x7f80);
    default: return contents<uint32_t>(data, n, stored == Dtype::kBF16 ? 0x7f7f8000 : 0x7f800000);
  }
}

EngineError non_finite(size_t module, char factor) {
  EngineError error(ErrorCode::kNonFinite, std::string("Expected finite numbers in lora_") +
                                               (factor == 'a' ? "A" : "B") + " of modules[" +
                                               std::to_string(module) + "]");
  error.module = static_cast<int>(module);
  error.factor = factor;
  return error;
}

EngineError out_of_memory() {
  return {ErrorCode::kNoCapacity, "No memory is left to stage the revision with"};
}

}  // namespace

Inspected inspect(const ModelConfig& config, Dtype stored, StageRequest request) {
  Inspected result;
  result.zero_effect = true;
  for (size_t i = 0; i < request.modules.size() && !result.error; ++i) {
    const StageModule& m = request.modules[i];
    const Contents a =
        contents(request.body.data() + m.a_offset, m.rank * module_in(config, m.module), m.a_dtype, stored);
    const Contents b =
        contents(request.body.data() + m.b_offset, m.rank * module_out(config, m.module), m.b_dtype, stored);
    if (!a.finite) result.error = non_finite(i, 'a');
    if (!b.finite && a.finite) result.error = non_finite(i, 'b');
    result.zero_effect = result.zero_effect && b.zero;
  }
  result.request = std::move(request);
  return result;
}

Packer::Packer(const ModelConfig& config, Executor& executor, Done done)
    : config_(config), executor_(executor), done_(std::move(done)), thread_([this] { run(); }) {}

Packer::~Packer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Packer::add(StageRequest request) {
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(std::move(request));
  }
  wake_.notify_one();
}

void Packer::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !requests_.empty(); });
    if (stop_) return;
    StageRequest request = std::move(requests_.front());
    requests_.pop_front();
    lock.unlock();
    stage(std::move(request));
    lock.lock();
  }
}

void Packer::stage(StageRequest request) {
  const std::optional<PackJob> job = inspect_and_reserve(std::move(request));
  if (!job) return;
  const auto start = std::chrono::steady_clock::now();
  Packed packed{job->request.revision, 0, 0, std::nullopt};
  try {
    packed.rounded =
        executor_.stage({job->slot, job->request.modules, job->pages}, job->request.body).rounded;
  } catch (const std::bad_alloc&) {
    packed.error = out_of_memory();
  } catch (const std::exception& error) {
    packed.error = EngineError(ErrorCode::kEngineFailed, error.what());
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  packed.pack_ms = took.count();
  done_.packed(packed);
}

// Whatever goes wrong here goes wrong for this revision alone.
std::optional<PackJob> Packer::inspect_and_reserve(StageRequest request) {
  Inspected failed;
  failed.request.revision = request.revision;
  try {
    return done_.inspected(inspect(config_, executor_.limits().stored, std::move(request)));
  } catch (const std::bad_alloc&) {
    failed.error = out_of_memory();
  } catch (const std::exception& error) {
    failed.error = EngineError(ErrorCode::kEngineFailed, error.what());
  }
  return done_.inspected(std::move(failed));
}

}  // namespace lorikeet
