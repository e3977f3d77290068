// A small pool that splits an op over [begin, end). Ops keep their bits under any split (kernels/ops.h), so
// results do not depend on the number of threads. Workers sleep between ops: an idle engine costs no CPU.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

namespace lorikeet::cpu {

class Threads {
 public:
  explicit Threads(int count);  // including the calling thread
  ~Threads();
  Threads(const Threads&) = delete;
  Threads& operator=(const Threads&) = delete;

  int count() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls fn(begin, end, worker) on disjoint ranges that cover [0, n). `cost` is the multiplications of one
  // item; little work stays on the calling thread. fn must not throw.
  template <typename Fn>
  void split(int64_t n, int64_t cost, Fn&& fn) {
    if (workers_.empty() || n < 2 || n * cost < kWorthWaking) {
      fn(int64_t{0}, n, 0);
      return;
    }
    dispatch(
        n,
        [](void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<std::remove_reference_t<Fn>*>(context))(begin, end, worker);
        },
        &fn);
  }

 private:
  using Call = void (*)(void* context, int64_t begin, int64_t end, int worker);
  // Waking a sleeping worker takes about as long as this many multiplications.
  static constexpr int64_t kWorthWaking = 100'000;

  void dispatch(int64_t n, Call call, void* context);
  void work(int worker);
  void run_part(int worker) const;

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  int64_t n_ = 0;
  Call call_ = nullptr;
  void* context_ = nullptr;
  uint64_t round_ = 0;
  int busy_ = 0;
  bool stop_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace lorikeet::cpu
