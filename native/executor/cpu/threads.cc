#include "threads.h"

namespace lorikeet::cpu {

Threads::Threads(int count) {
  for (int worker = 1; worker < count; ++worker) workers_.emplace_back([this, worker] { work(worker); });
}

Threads::~Threads() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Threads::run_part(int worker) const {
  const int64_t begin = n_ * worker / count();
  const int64_t end = n_ * (worker + 1) / count();
  if (begin < end) call_(context_, begin, end, worker);
}

void Threads::dispatch(int64_t n, Call call, void* context) {
  {
    const std::lock_guard lock(mutex_);
    n_ = n;
    call_ = call;
    context_ = context;
    busy_ = static_cast<int>(workers_.size());
    ++round_;
  }
  wake_.notify_all();
  run_part(0);
  std::unique_lock lock(mutex_);
  finished_.wait(lock, [this] { return busy_ == 0; });
}

void Threads::work(int worker) {
  uint64_t seen = 0;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [&] { return stop_ || round_ != seen; });
    if (stop_) return;
    seen = round_;
    lock.unlock();
    run_part(worker);
    lock.lock();
    if (--busy_ == 0) finished_.notify_one();
  }
}

}  // namespace lorikeet::cpu
