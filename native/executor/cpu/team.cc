#include "team.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace lorikeet::cpu {
namespace {

void relax() {
#ifdef __x86_64__
  _mm_pause();
#endif
}

// Waits until `value` is no longer `seen`: a little while awake, for most waits are short, then asleep.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t seen) {
  constexpr int kSpins = 2000;
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != seen) return;
    relax();
  }
  value.wait(seen, std::memory_order_acquire);
}

}  // namespace

Team::Team(int count) {
  for (int index = 1; index < count; ++index) threads_.emplace_back([this, index] { work(index); });
}

Team::~Team() {
  stop_ = true;
  ++round_;
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Team::run_body() {
  ++round_;
  round_.notify_all();
  Worker first(*this, 0);
  body_(context_, first);
  arrive();  // nobody reads the body any more
}

void Team::work(int index) {
  Worker worker(*this, index);
  for (uint32_t seen = 0;;) {
    wait_for_change(round_, seen);
    ++seen;
    if (stop_) return;
    body_(context_, worker);
    arrive();
  }
}

// The end of a loop: the last to come opens the next one.
void Team::arrive() {
  const uint32_t turn = turn_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < count()) return wait_for_change(turn_, turn);
  arrived_.store(0, std::memory_order_relaxed);
  next_.store(0, std::memory_order_relaxed);
  turn_.store(turn + 1, std::memory_order_release);
  turn_.notify_all();
}

}  // namespace lorikeet::cpu
