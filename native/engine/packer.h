// Packs staged revisions into their pages on a thread of its own, so that the engine thread never copies
// tensors.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "messages.h"
#include "slot_pool.h"

namespace lorikeet {

// What the tensors of a revision hold, found without writing anything.
struct Inspected {
  StageRequest request;
  bool zero_effect = false;
  std::optional<EngineError> error;  // non_finite
};

// A revision is in its pages.
struct Packed {
  std::string revision;
  double pack_ms = 0;
};

Inspected inspect(const ModelConfig& config, StageRequest request);
// Widens every factor into its pages.
Packed pack(const ModelConfig& config, const StageRequest& request, const std::vector<PackTarget>& targets);

class Packer {
 public:
  struct Done {  // called on the packer's thread
    std::function<void(Inspected)> inspected;
    std::function<void(Packed)> packed;
  };

  Packer(const ModelConfig& config, Done done);
  // Finishes the job in hand and drops the others.
  ~Packer();

  void add_inspection(StageRequest request);
  void add_packing(StageRequest request, std::vector<PackTarget> targets);

 private:
  using Job = std::function<void()>;
  void add(Job job);
  void run();

  const ModelConfig& config_;
  const Done done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lorikeet
