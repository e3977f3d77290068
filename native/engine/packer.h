// Inspects staged revisions and writes them into their pages on a thread of its own, so that the engine
// thread never touches tensors.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "executor/executor.h"
#include "staging.h"

namespace lorikeet {

// What the tensors of a revision hold, found without writing anything.
Inspected inspect(const ModelConfig& config, Dtype stored, StageRequest request);

class Packer {
 public:
  struct Done {  // called on the packer's thread
    std::function<std::optional<PackJob>(Inspected)> inspected;
    std::function<void(Packed)> packed;
  };

  Packer(const ModelConfig& config, Executor& executor, Done done);
  // Finishes the revision in hand and drops the others.
  ~Packer();

  void add(StageRequest request);

 private:
  void run();
  void stage(StageRequest request);
  std::optional<PackJob> inspect_and_reserve(StageRequest request);

  const ModelConfig& config_;
  Executor& executor_;
  const Done done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<StageRequest> requests_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lorikeet
