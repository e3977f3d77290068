// Revisions on their way into slots, and the callers of stage() that wait for them. Decides only: the
// packer's thread does what these steps ask for. All is called under the engine's lock.
//
//   begin -> (packer: inspect) -> inspected -> (packer: write pages) -> packed: ready
//
// A revision with bad numbers is refused before it takes a slot, so it evicts nobody.
#pragma once

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "messages.h"
#include "slot_pool.h"

namespace lorikeet {

struct Inspected {
  StageRequest request;
  bool zero_effect = false;
  std::optional<EngineError> error;  // non_finite, or what stopped the inspection
};

// A revision with a slot and pages, to be written into them.
struct PackJob {
  StageRequest request;
  int slot = 0;
  std::vector<std::vector<int32_t>> pages;  // [layers, kGroups]
};

// A revision is in its pages.
struct Packed {
  std::string revision;
  double pack_ms = 0;
  int64_t rounded = 0;
  std::optional<EngineError> error;  // engine_failed where the device did, no_capacity where memory ran out
};

class Staging {
 public:
  explicit Staging(SlotPool& slots) : slots_(slots) {}

  // Replies at once where the revision is resident. Returns what has to be inspected, if anything.
  std::optional<StageRequest> begin(StageRequest request, StageReply reply);
  std::optional<PackJob> inspected(Inspected inspected);
  void packed(const Packed& packed);

  // A revision that is released while it is staged fails with revision_not_found. False where none is staged.
  bool release(const std::string& revision);
  // Fails all that are under way.
  void close(const EngineError& error);

 private:
  struct Pending {
    std::vector<StageReply> replies;
    StageReport report;
    bool released = false;
  };
  void end(const std::string& revision, std::optional<EngineError> error);

  SlotPool& slots_;
  std::unordered_map<std::string, Pending> pending_;  // by revision
};

}  // namespace lorikeet
