// Slots and pages for the revisions of adapters: ids, states and leases. Page memory is the executor's.
//
//   free -> staging -> ready -> (retired while leases > 0) -> free
//
// A slot's pages are written only while it is staging, when no sequence can read them. Changes are made under
// the engine's lock; a step reads the slots that its sequences lease without it, for nothing changes in those
// meanwhile.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "messages.h"

namespace lorikeet {

class SlotPool {
 public:
  enum class State : uint8_t { kFree, kStaging, kReady, kRetired };

  struct Sizes {
    int64_t slots = 0;
    int64_t layers = 0;
    std::array<int64_t, kGroups> pages{};  // of each group
  };
  // `freed` is called with each slot that becomes free.
  SlotPool(const Sizes& sizes, std::function<void(int)> freed);

  struct Reservation {
    int slot = 0;
    int64_t page_count = 0;
    std::vector<std::string> evicted;
    std::vector<std::vector<int32_t>> pages;  // [layers, kGroups], as StagePlan::pages
  };
  // Takes a slot and pages for the revision, evicting least recently used ones; null where all are leased or
  // being staged.
  std::optional<Reservation> reserve(const std::string& revision, std::span<const StageModule> modules);
  void make_ready(int slot, bool zero_effect, int64_t rounded);
  // Gives back a staging slot.
  void abandon(int slot) { free(slot); }

  std::optional<int> find(const std::string& revision) const;
  // The slot of a revision that can be served.
  std::optional<int> find_ready(const std::string& revision) const;
  const std::string& revision(int slot) const { return at(slot).revision; }
  int64_t leases(int slot) const { return at(slot).leases; }
  int64_t pages_of(int slot) const { return at(slot).page_count; }
  bool zero_effect(int slot) const { return at(slot).zero_effect; }
  int64_t rounded(int slot) const { return at(slot).rounded; }
  // Makes the revision the last to be evicted.
  void touch(int slot) { at(slot).last_used = ++uses_; }

  void lease(int slot);
  // True where this was the last lease of a retired revision, which is free now.
  bool end_lease(int slot);
  // Frees the slot, or retires it while it has leases.
  void release(int slot);
  // A retired revision that is staged again serves on: its content is what was asked for.
  void revive(int slot);

  int64_t pages() const { return page_total_; }
  int64_t pages_used() const { return pages_used_; }
  std::vector<SlotSnapshot> snapshot() const;

 private:
  struct Slot {
    State state = State::kFree;
    std::string revision;
    int64_t leases = 0;
    uint64_t last_used = 0;
    int64_t page_count = 0;
    bool zero_effect = false;
    int64_t rounded = 0;
    std::vector<std::vector<int32_t>> pages;  // [layers, kGroups]
  };

  Slot& at(int slot) { return slots_[static_cast<size_t>(slot)]; }
  const Slot& at(int slot) const { return slots_[static_cast<size_t>(slot)]; }
  std::vector<int64_t> pages_needed(std::span<const StageModule> modules) const;
  bool fits(const std::vector<int64_t>& needed) const;
  std::optional<int> least_recently_used() const;
  std::optional<int> free_slot() const;
  void free(int slot);

  int64_t layers_;
  std::function<void(int)> freed_;
  // The last freed page is taken first, so that touched memory is reused.
  std::array<std::vector<int32_t>, kGroups> free_pages_;
  std::vector<Slot> slots_;
  std::unordered_map<std::string, int> by_revision_;
  uint64_t uses_ = 0;
  int64_t page_total_ = 0;
  int64_t pages_used_ = 0;
};

}  // namespace lorikeet
