// Threads that run one function together, from start to end, and share out its loops: no fork and join per
// op. Which thread computes what changes no bit (kernels/ops.h), so loops are shared out as threads come: one
// that the system holds up holds up nobody.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace lorikeet::cpu {

class Team {
 public:
  // A thread of the team, inside run().
  class Worker {
   public:
    int index() const { return index_; }

    // Called by all workers alike. Calls fn(begin, end) on disjoint ranges of at most `grain` that cover [0,
    // n), on whichever worker is free. Returns when all of [0, n) is done.
    template <typename Fn>
    void share(int64_t n, int64_t grain, Fn&& fn) {
      for (;;) {
        const int64_t begin = team_.next_.fetch_add(grain, std::memory_order_relaxed);
        if (begin >= n) break;
        fn(begin, begin + grain < n ? begin + grain : n);
      }
      team_.arrive();
    }

   private:
    friend Team;
    Worker(Team& team, int index) : team_(team), index_(index) {}
    Team& team_;
    const int index_;
  };

  explicit Team(int count);  // including the calling thread
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int count() const { return static_cast<int>(threads_.size()) + 1; }

  // Calls body(worker) on every thread and returns when all have. It must not throw.
  template <typename Body>
  void run(Body&& body) {
    body_ = [](void* context, Worker& worker) {
      (*static_cast<std::remove_reference_t<Body>*>(context))(worker);
    };
    context_ = &body;
    run_body();
  }

 private:
  void run_body();
  void work(int index);
  void arrive();

  void (*body_)(void* context, Worker& worker) = nullptr;
  void* context_ = nullptr;
  std::atomic<bool> stop_ = false;
  std::atomic<uint32_t> round_ = 0;  // of run()

  alignas(64) std::atomic<int64_t> next_ = 0;   // of the loop that is shared out
  alignas(64) std::atomic<int> arrived_ = 0;    // at the end of it
  alignas(64) std::atomic<uint32_t> turn_ = 0;  // loops ended
  std::vector<std::thread> threads_;
};

}  // namespace lorikeet::cpu
