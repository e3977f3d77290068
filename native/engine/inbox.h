// Commands to the engine thread.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "messages.h"

namespace lorikeet {

struct Submit {
  GenerateRequest request;
};
struct Cancel {
  int64_t id = 0;
};
struct Stage {
  StageRequest request;
  Reply<StageReport> reply;
};
struct Activate {
  std::string adapter, revision;
  Reply<Switched> reply;
};
struct Deactivate {
  std::string adapter;
  Reply<Switched> reply;
};
struct Release {
  std::string revision;
  Reply<int64_t> reply;
};
// The device failed while a revision was staged.
struct Fail {
  std::string message;
};
struct Close {
  std::function<void()> done;
};

using Command = std::variant<Submit, Cancel, Stage, Activate, Deactivate, Release, Fail, Close>;

class Inbox {
 public:
  void put(Command command) {
    {
      const std::lock_guard lock(mutex_);
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
  }

  // False where `limit` commands are waiting to be taken.
  bool try_put(Command command, size_t limit) {
    {
      const std::lock_guard lock(mutex_);
      if (commands_.size() >= limit) return false;
      commands_.push_back(std::move(command));
    }
    arrived_.notify_one();
    return true;
  }

  // All commands in order; where `wait` is set, sleeps until there is one.
  std::vector<Command> take(bool wait) {
    std::unique_lock lock(mutex_);
    if (wait) arrived_.wait(lock, [this] { return !commands_.empty(); });
    return std::exchange(commands_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::vector<Command> commands_;
};

}  // namespace lorikeet
