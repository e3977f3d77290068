// Slots and pages for the revisions of adapters. A page holds up to 16 ranks of one module group of one
// layer:
//
//   page of a group = [A of its 1st module [16, in] | A of its 2nd ... | B of its 1st module [out, 16] | B of
//   its 2nd ...]
//
// Page p of a module holds its ranks 16 p .. 16 p + 15, so memory follows the true rank. A slot is
//
//   free -> staging -> ready -> (retired while leases > 0) -> free
//
// and its pages are written only while it is staging, when no sequence can read them. Changes are made under the
// engine's lock; a step reads the slots that its sequences lease without it, for nothing changes in those meanwhile.
// The page memory of a staging slot is the packer's, through PackTarget.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "mapped_memory.h"
#include "messages.h"
#include "model.h"

namespace lorikeet {

// Where one page's part of a staged module goes.
struct PackTarget {
  int module = 0;      // index into StageRequest::modules
  int64_t rank0 = 0;   // first rank of the page
  int64_t ranks = 0;   // at most kPageRanks
  float* a = nullptr;  // [ranks, in]
  float* b = nullptr;  // [out, kPageRanks]
};

// One page's share of an adapted projection.
struct Factor {
  const float* a = nullptr;  // [ranks, in]
  const float* b = nullptr;  // [out, kPageRanks]
  int64_t ranks = 0;
};

class SlotPool {
 public:
  enum class State : uint8_t { kFree, kStaging, kReady, kRetired };

  SlotPool(const ModelConfig& config, int64_t slots, int64_t max_rank);

  struct Reservation {
    int slot = 0;
    int64_t pages = 0;
    std::vector<std::string> evicted;
    std::vector<PackTarget> targets;
  };
  // Takes a slot and pages for the revision, evicting least recently used ones; throws no_capacity.
  Reservation reserve(const std::string& revision, const std::vector<StageModule>& modules);
  void make_ready(int slot, bool zero_effect);
  // Gives back a staging slot.
  void abandon(int slot);

  std::optional<int> find(const std::string& revision) const;
  State state(int slot) const { return at(slot).state; }
  const std::string& revision(int slot) const { return at(slot).revision; }
  int64_t leases(int slot) const { return at(slot).leases; }
  int64_t pages_of(int slot) const { return at(slot).page_count; }
  bool zero_effect(int slot) const { return at(slot).zero_effect; }
  // Makes the revision the last to be evicted.
  void touch(int slot) { at(slot).last_used = ++uses_; }

  void lease(int slot);
  // True where this was the last lease of a retired revision, which is free now.
  bool end_lease(int slot);
  // Frees the slot, or retires it while it has leases.
  void release(int slot);
  // A retired revision that is staged again serves on: its content is what was asked for.
  void revive(int slot);

  // Ranks and scale of an adapted projection; rank 0 where the revision does not adapt it.
  int64_t rank(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).rank; }
  float scale(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).scale; }
  Factor factor(int slot, int64_t layer, Module module, int64_t page) const;

  int64_t pages() const { return page_total_; }
  int64_t pages_used() const { return pages_used_; }
  std::vector<SlotSnapshot> snapshot() const;

 private:
  static constexpr int kGroups = 4;  // qkv, o, gate_up, down

  struct Group {
    int64_t page_floats = 0;
    MappedMemory memory;        // [pages, page_floats]
    std::vector<int32_t> free;  // the last freed is taken first, so that touched memory is reused
  };
  struct Place {  // of a module within its group's page
    int group = 0;
    int64_t a_offset = 0, b_offset = 0;
    int64_t in = 0, out = 0;
  };
  struct Adapted {
    int64_t rank = 0;
    float scale = 0;
  };
  struct Slot {
    State state = State::kFree;
    std::string revision;
    int64_t leases = 0;
    uint64_t last_used = 0;
    int64_t page_count = 0;
    bool zero_effect = false;
    std::vector<Adapted> modules;             // [layers, kModules]
    std::vector<std::vector<int32_t>> pages;  // [layers, kGroups]
  };

  Slot& at(int slot) { return slots_[static_cast<size_t>(slot)]; }
  const Slot& at(int slot) const { return slots_[static_cast<size_t>(slot)]; }
  const Place& place(Module module) const { return places_[static_cast<size_t>(module)]; }
  const Adapted& adapted(int slot, int64_t layer, Module module) const {
    return at(slot).modules[static_cast<size_t>(layer * kModules + static_cast<int64_t>(module))];
  }
  float* page_address(int group, int32_t page) const;
  std::vector<int64_t> pages_needed(const std::vector<StageModule>& modules) const;
  bool fits(const std::vector<int64_t>& needed) const;
  std::optional<int> least_recently_used() const;
  std::optional<int> free_slot() const;
  void free(int slot);
  void poison(const Slot& slot, int64_t layer, Module module);

  int64_t layers_;
  std::array<Place, kModules> places_;
  std::array<Group, kGroups> groups_;
  std::vector<Slot> slots_;
  std::unordered_map<std::string, int> by_revision_;
  uint64_t uses_ = 0;
  int64_t page_total_ = 0;
  int64_t pages_used_ = 0;
};

}  // namespace lorikeet
