#include "slot_pool.h"

#include <algorithm>

namespace lorikeet {
namespace {

const char* name_of(SlotPool::State state) {
  switch (state) {
    case SlotPool::State::kStaging: return "staging";
    case SlotPool::State::kReady: return "ready";
    case SlotPool::State::kRetired: return "retired";
    default: return "free";
  }
}

}  // namespace

SlotPool::SlotPool(const Sizes& sizes, std::function<void(int)> freed)
    : layers_(sizes.layers), freed_(std::move(freed)), slots_(static_cast<size_t>(sizes.slots)) {
  for (size_t group = 0; group < kGroups; ++group) {
    const int64_t pages = sizes.pages[group];
    free_pages_[group].resize(static_cast<size_t>(pages));
    for (int64_t i = 0; i < pages; ++i)
      free_pages_[group][static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);
    page_total_ += pages;
  }
}

// Pages of each (layer, group): those of its module with the highest rank.
std::vector<int64_t> SlotPool::pages_needed(std::span<const StageModule> modules) const {
  std::vector<int64_t> needed(static_cast<size_t>(layers_ * kGroups));
  for (const StageModule& m : modules) {
    int64_t& pages = needed[place_of(m.layer, group_of(m.module))];
    pages = std::max(pages, pages_for(m.rank));
  }
  return needed;
}

bool SlotPool::fits(const std::vector<int64_t>& needed) const {
  std::array<int64_t, kGroups> sums{};
  for (size_t i = 0; i < needed.size(); ++i) sums[i % kGroups] += needed[i];
  for (size_t g = 0; g < kGroups; ++g) {
    if (sums[g] > static_cast<int64_t>(free_pages_[g].size())) return false;
  }
  return free_slot().has_value();
}

std::optional<int> SlotPool::free_slot() const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (slots_[i].state == State::kFree) return static_cast<int>(i);
  }
  return std::nullopt;
}

std::optional<int> SlotPool::least_recently_used() const {
  std::optional<int> oldest;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state != State::kReady || slot.leases > 0) continue;
    if (!oldest || slot.last_used < at(*oldest).last_used) oldest = static_cast<int>(i);
  }
  return oldest;
}

std::optional<SlotPool::Reservation> SlotPool::reserve(const std::string& revision,
                                                       std::span<const StageModule> modules) {
  const std::vector<int64_t> needed = pages_needed(modules);
  Reservation reservation;
  while (!fits(needed)) {
    const std::optional<int> victim = least_recently_used();
    if (!victim) return std::nullopt;
    reservation.evicted.push_back(at(*victim).revision);
    free(*victim);
  }

  // All memory first: what follows cannot fail halfway.
  Slot taken;
  taken.revision = revision;
  taken.pages.resize(needed.size());
  std::array<int64_t, kGroups> left{};
  for (size_t g = 0; g < kGroups; ++g) left[g] = std::ssize(free_pages_[g]);
  for (size_t i = 0; i < needed.size(); ++i) {
    const auto end = free_pages_[i % kGroups].begin() + left[i % kGroups];
    taken.pages[i].assign(end - needed[i], end);
    left[i % kGroups] -= needed[i];
    taken.page_count += needed[i];
  }
  reservation.pages = taken.pages;
  reservation.page_count = taken.page_count;
  reservation.slot = *free_slot();
  by_revision_.emplace(revision, reservation.slot);

  taken.state = State::kStaging;
  taken.last_used = ++uses_;
  pages_used_ += taken.page_count;
  at(reservation.slot) = std::move(taken);
  for (size_t g = 0; g < kGroups; ++g) free_pages_[g].resize(static_cast<size_t>(left[g]));
  return reservation;
}

void SlotPool::make_ready(int slot, bool zero_effect, int64_t rounded) {
  at(slot).state = State::kReady;
  at(slot).zero_effect = zero_effect;
  at(slot).rounded = rounded;
  touch(slot);
}

std::optional<int> SlotPool::find(const std::string& revision) const {
  const auto found = by_revision_.find(revision);
  return found == by_revision_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int> SlotPool::find_ready(const std::string& revision) const {
  const std::optional<int> slot = find(revision);
  return slot && at(*slot).state == State::kReady ? slot : std::nullopt;
}

void SlotPool::lease(int slot) {
  ++at(slot).leases;
  touch(slot);
}

bool SlotPool::end_lease(int slot) {
  if (--at(slot).leases > 0 || at(slot).state != State::kRetired) return false;
  free(slot);
  return true;
}

void SlotPool::release(int slot) {
  if (at(slot).leases > 0) {
    at(slot).state = State::kRetired;
  } else {
    free(slot);
  }
}

void SlotPool::revive(int slot) {
  at(slot).state = State::kReady;
  touch(slot);
}

void SlotPool::free(int index) {
  Slot& slot = at(index);
  freed_(index);
  for (size_t i = 0; i < slot.pages.size(); ++i) {
    std::vector<int32_t>& free_pages = free_pages_[i % kGroups];
    free_pages.insert(free_pages.end(), slot.pages[i].begin(), slot.pages[i].end());
  }
  pages_used_ -= slot.page_count;
  by_revision_.erase(slot.revision);
  slot = {};
}

std::vector<SlotSnapshot> SlotPool::snapshot() const {
  std::vector<SlotSnapshot> taken;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state == State::kFree) continue;
    taken.push_back(
        {static_cast<int64_t>(i), slot.revision, name_of(slot.state), slot.leases, slot.page_count});
  }
  return taken;
}

}  // namespace lorikeet
