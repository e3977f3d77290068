#include "packer.h"

#include <algorithm>
#include <bit>
#include <chrono>

#include "dtypes.h"

namespace lorikeet {
namespace {

bool all_finite(const float* values, int64_t n) {
  uint32_t worst = 0;
  for (int64_t i = 0; i < n; ++i) worst = std::max(worst, std::bit_cast<uint32_t>(values[i]) & 0x7f800000u);
  return worst != 0x7f800000u;
}

EngineError non_finite(int module, char factor) {
  EngineError error("non_finite", std::string("Expected finite numbers in lora_") + (factor == 'a' ? "A" : "B") +
                                      " of modules[" + std::to_string(module) + "]");
  error.module = module;
  error.factor = factor;
  return error;
}

}  // namespace

Packed pack(const ModelConfig& config, const StageRequest& request, const std::vector<PackTarget>& targets) {
  const auto start = std::chrono::steady_clock::now();
  Packed packed;
  packed.zero_effect = true;
  for (const PackTarget& target : targets) {
    const StageModule& m = request.modules[static_cast<size_t>(target.module)];
    const int64_t in = module_in(config, m.module);
    const int64_t out = module_out(config, m.module);

    // A: ranks rank0 .. of the page, [ranks, in]
    const std::byte* a = request.body.data() + m.a_offset;
    widen(target.a, a + target.rank0 * in * dtype_bytes(m.a_dtype), m.a_dtype, target.ranks * in);
    if (!all_finite(target.a, target.ranks * in)) throw non_finite(target.module, 'a');

    // B: columns rank0 .. of every row, zero beyond the ranks, [out, kPageRanks]
    const std::byte* b = request.body.data() + m.b_offset;
    for (int64_t o = 0; o < out; ++o) {
      float* to = target.b + o * kPageRanks;
      widen(to, b + (o * m.rank + target.rank0) * dtype_bytes(m.b_dtype), m.b_dtype, target.ranks);
      std::fill(to + target.ranks, to + kPageRanks, 0.0f);
    }
    const int64_t b_values = out * kPageRanks;
    if (!all_finite(target.b, b_values)) throw non_finite(target.module, 'b');
    packed.zero_effect = packed.zero_effect && std::all_of(target.b, target.b + b_values, [](float v) { return v == 0; });
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  packed.pack_ms = took.count();
  return packed;
}

Packer::Packer(const ModelConfig& config, std::function<void(Packed)> done)
    : config_(config), done_(std::move(done)), thread_([this] { run(); }) {}

Packer::~Packer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Packer::add(Job job) {
  {
    const std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void Packer::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
    if (stop_) return;
    const Job job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    Packed packed;
    try {
      packed = pack(config_, job.request, job.targets);
    } catch (const EngineError& error) {
      packed.error = error;
    }
    packed.slot = job.slot;
    done_(std::move(packed));
    lock.lock();
  }
}

}  // namespace lorikeet
