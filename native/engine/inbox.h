// Commands to the engine thread, which takes them between two steps.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "scheduler.h"

namespace lorikeet {

struct Submit {
  std::unique_ptr<Sequence> sequence;
};
struct Cancel {
  int64_t id = 0;
};
// The device failed while a revision was staged.
struct Fail {
  std::string message;
};
struct Close {
  std::function<void()> done;
};

using Command = std::variant<Submit, Cancel, Fail, Close>;

class Inbox {
 public:
  void put(Command command) {
    {
      const std::lock_guard lock(mutex_);
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
  }

  size_t size() const {
    const std::lock_guard lock(mutex_);
    return commands_.size();
  }

  // All commands in order; where `wait` is set, sleeps until there is one.
  std::vector<Command> take(bool wait) {
    std::unique_lock lock(mutex_);
    if (wait) arrived_.wait(lock, [this] { return !commands_.empty(); });
    return std::exchange(commands_, {});
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Command> commands_;
};

}  // namespace lorikeet
