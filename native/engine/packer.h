// Packs staged revisions into their pages on a thread of its own, so that the engine thread never copies tensors.
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

struct Packed {
  int slot = 0;
  bool zero_effect = false;
  double pack_ms = 0;
  std::optional<EngineError> error;
};

// Widens every factor into its pages. Throws non_finite.
Packed pack(const ModelConfig& config, const StageRequest& request, const std::vector<PackTarget>& targets);

class Packer {
 public:
  struct Job {
    int slot = 0;
    StageRequest request;
    std::vector<PackTarget> targets;
  };

  // `done` is called on the packer's thread.
  Packer(const ModelConfig& config, std::function<void(Packed)> done);
  // Finishes the job in hand and drops the others.
  ~Packer();

  void add(Job job);

 private:
  void run();

  const ModelConfig& config_;
  std::function<void(Packed)> done_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace lorikeet
