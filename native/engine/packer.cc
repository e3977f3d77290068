#include "packer.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "dtypes.h"

namespace lorikeet {
namespace {

struct Contents {
  bool finite = false;
  bool zero = false;
};

// `exponent` masks the exponent bits, which are all set in infinities and NaN.
template <typename Bits>
Contents contents(const std::byte* data, int64_t n, Bits exponent) {
  Bits largest = 0, any = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits = 0;
    std::memcpy(&bits, data + i * static_cast<int64_t>(sizeof bits), sizeof bits);
    largest = std::max<Bits>(largest, bits & exponent);
    any = static_cast<Bits>(any | static_cast<Bits>(bits << 1));  // without the sign
  }
  return {largest != exponent, any == 0};
}

Contents contents(const std::byte* data, int64_t n, Dtype dtype) {
  switch (dtype) {
    case Dtype::kF16: return contents<uint16_t>(data, n, 0x7c00);
    case Dtype::kBF16: return contents<uint16_t>(data, n, 0x7f80);
    default: return contents<uint32_t>(data, n, 0x7f800000);
  }
}

EngineError non_finite(size_t module, char factor) {
  EngineError error("non_finite", std::string("Expected finite numbers in lora_") +
                                      (factor == 'a' ? "A" : "B") + " of modules[" + std::to_string(module) +
                                      "]");
  error.module = static_cast<int>(module);
  error.factor = factor;
  return error;
}

}  // namespace

Inspected inspect(const ModelConfig& config, StageRequest request) {
  Inspected result;
  result.zero_effect = true;
  for (size_t i = 0; i < request.modules.size() && !result.error; ++i) {
    const StageModule& m = request.modules[i];
    const Contents a =
        contents(request.body.data() + m.a_offset, m.rank * module_in(config, m.module), m.a_dtype);
    const Contents b =
        contents(request.body.data() + m.b_offset, m.rank * module_out(config, m.module), m.b_dtype);
    if (!a.finite) result.error = non_finite(i, 'a');
    if (!b.finite && a.finite) result.error = non_finite(i, 'b');
    result.zero_effect = result.zero_effect && b.zero;
  }
  result.request = std::move(request);
  return result;
}

Packed pack(const ModelConfig& config, const StageRequest& request, const std::vector<PackTarget>& targets) {
  const auto start = std::chrono::steady_clock::now();
  for (const PackTarget& target : targets) {
    const StageModule& m = request.modules[static_cast<size_t>(target.module)];
    const int64_t in = module_in(config, m.module);
    const int64_t out = module_out(config, m.module);

    // A: ranks rank0 .. of the page, [ranks, in]
    const std::byte* a = request.body.data() + m.a_offset;
    widen(target.a, a + target.rank0 * in * dtype_bytes(m.a_dtype), m.a_dtype, target.ranks * in);

    // B: columns rank0 .. of every row, zero beyond the ranks, [out, kPageRanks]
    const std::byte* b = request.body.data() + m.b_offset;
    for (int64_t o = 0; o < out; ++o) {
      float* to = target.b + o * kPageRanks;
      widen(to, b + (o * m.rank + target.rank0) * dtype_bytes(m.b_dtype), m.b_dtype, target.ranks);
      std::fill(to + target.ranks, to + kPageRanks, 0.0f);
    }
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  return {request.revision, took.count()};
}

Packer::Packer(const ModelConfig& config, Done done)
    : config_(config), done_(std::move(done)), thread_([this] { run(); }) {}

Packer::~Packer() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Packer::add_inspection(StageRequest request) {
  add([this, request = std::move(request)]() mutable {
    done_.inspected(inspect(config_, std::move(request)));
  });
}

void Packer::add_packing(StageRequest request, std::vector<PackTarget> targets) {
  add([this, request = std::move(request), targets = std::move(targets)] {
    done_.packed(pack(config_, request, targets));
  });
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
    job();
    lock.lock();
  }
}

}  // namespace lorikeet
