#include "slot_pool.h"

#include <algorithm>
#include <limits>

namespace lorikeet {
namespace {

constexpr std::array<int, kModules> kGroupOf = {0, 0, 0, 1, 2, 2, 3};

int64_t pages_for(int64_t rank) { return (rank + kPageRanks - 1) / kPageRanks; }

const char* name_of(SlotPool::State state) {
  switch (state) {
    case SlotPool::State::kStaging: return "staging";
    case SlotPool::State::kReady: return "ready";
    case SlotPool::State::kRetired: return "retired";
    default: return "free";
  }
}

}  // namespace

SlotPool::SlotPool(const ModelConfig& config, int64_t slots, int64_t max_rank) : layers_(config.layers) {
  for (int m = 0; m < kModules; ++m) {
    Place& p = places_[static_cast<size_t>(m)];
    p.group = kGroupOf[static_cast<size_t>(m)];
    p.in = module_in(config, static_cast<Module>(m));
    p.out = module_out(config, static_cast<Module>(m));
    int64_t& used = groups_[static_cast<size_t>(p.group)].page_floats;
    p.a_offset = used;
    p.b_offset = used + kPageRanks * p.in;
    used += kPageRanks * (p.in + p.out);
  }
  const int64_t pages = slots * layers_ * pages_for(max_rank);
  if (pages > std::numeric_limits<int32_t>::max()) {
    throw EngineError::invalid("slots", "Expected fewer slots: their pages cannot be numbered");
  }
  for (Group& group : groups_) {
    group.memory = MappedMemory::anonymous(static_cast<size_t>(pages * group.page_floats) * sizeof(float));
    group.free.resize(static_cast<size_t>(pages));
    for (int64_t i = 0; i < pages; ++i)
      group.free[static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);
    page_total_ += pages;
  }
  slots_.resize(static_cast<size_t>(slots));
}

float* SlotPool::page_address(int group, int32_t page) const {
  const Group& g = groups_[static_cast<size_t>(group)];
  return g.memory.floats() + page * g.page_floats;
}

// Pages of each (layer, group): those of its module with the highest rank.
std::vector<int64_t> SlotPool::pages_needed(const std::vector<StageModule>& modules) const {
  std::vector<int64_t> needed(static_cast<size_t>(layers_ * kGroups));
  for (const StageModule& m : modules) {
    int64_t& pages = needed[static_cast<size_t>(m.layer * kGroups + place(m.module).group)];
    pages = std::max(pages, pages_for(m.rank));
  }
  return needed;
}

bool SlotPool::fits(const std::vector<int64_t>& needed) const {
  std::array<int64_t, kGroups> sums{};
  for (size_t i = 0; i < needed.size(); ++i) sums[i % kGroups] += needed[i];
  for (size_t g = 0; g < kGroups; ++g) {
    if (sums[g] > static_cast<int64_t>(groups_[g].free.size())) return false;
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

SlotPool::Reservation SlotPool::reserve(const std::string& revision,
                                        const std::vector<StageModule>& modules) {
  const std::vector<int64_t> needed = pages_needed(modules);
  Reservation reservation;
  while (!fits(needed)) {
    const std::optional<int> victim = least_recently_used();
    if (!victim) {
      throw EngineError("no_capacity", "No slot or pages are free for " + revision + ": all " +
                                           std::to_string(slots_.size()) +
                                           " slots are leased or being staged");
    }
    reservation.evicted.push_back(at(*victim).revision);
    free(*victim);
  }

  reservation.slot = *free_slot();
  Slot& slot = at(reservation.slot);
  slot.state = State::kStaging;
  slot.revision = revision;
  slot.last_used = ++uses_;
  slot.modules.assign(static_cast<size_t>(layers_ * kModules), {});
  slot.pages.assign(needed.size(), {});
  for (size_t i = 0; i < needed.size(); ++i) {
    std::vector<int32_t>& free_pages = groups_[i % kGroups].free;
    slot.pages[i].assign(free_pages.end() - needed[i], free_pages.end());
    free_pages.resize(free_pages.size() - static_cast<size_t>(needed[i]));
    slot.page_count += needed[i];
  }
  pages_used_ += slot.page_count;
  by_revision_[revision] = reservation.slot;
  reservation.pages = slot.page_count;

  for (size_t i = 0; i < modules.size(); ++i) {
    const StageModule& m = modules[i];
    const Place& p = place(m.module);
    slot.modules[static_cast<size_t>(m.layer * kModules + static_cast<int64_t>(m.module))] = {m.rank,
                                                                                              m.scale};
    for (int64_t rank0 = 0; rank0 < m.rank; rank0 += kPageRanks) {
      const auto group_pages = static_cast<size_t>(m.layer * kGroups + p.group);
      float* page = page_address(p.group, slot.pages[group_pages][static_cast<size_t>(rank0 / kPageRanks)]);
      reservation.targets.push_back({static_cast<int>(i), rank0, std::min(kPageRanks, m.rank - rank0),
                                     page + p.a_offset, page + p.b_offset});
    }
  }
  return reservation;
}

void SlotPool::make_ready(int slot, bool zero_effect) {
  at(slot).state = State::kReady;
  at(slot).zero_effect = zero_effect;
  touch(slot);
}

void SlotPool::abandon(int slot) { free(slot); }

std::optional<int> SlotPool::find(const std::string& revision) const {
  const auto found = by_revision_.find(revision);
  return found == by_revision_.end() ? std::nullopt : std::optional(found->second);
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

Factor SlotPool::factor(int slot, int64_t layer, Module module, int64_t page) const {
  const Place& p = place(module);
  const auto group_pages = static_cast<size_t>(layer * kGroups + p.group);
  const float* base = page_address(p.group, at(slot).pages[group_pages][static_cast<size_t>(page)]);
  const int64_t ranks = std::min(kPageRanks, rank(slot, layer, module) - page * kPageRanks);
  return {base + p.a_offset, base + p.b_offset, ranks};
}

// A NaN at the head of each row of A makes every product of a stale reader NaN, and costs no more than the
// rows.
void SlotPool::poison(const Slot& slot, int64_t layer, Module module) {
  const Place& p = place(module);
  const int64_t rank =
      slot.modules[static_cast<size_t>(layer * kModules + static_cast<int64_t>(module))].rank;
  for (int64_t r = 0; r < rank; ++r) {
    const auto group_pages = static_cast<size_t>(layer * kGroups + p.group);
    float* page = page_address(p.group, slot.pages[group_pages][static_cast<size_t>(r / kPageRanks)]);
    page[p.a_offset + r % kPageRanks * p.in] = std::numeric_limits<float>::quiet_NaN();
  }
}

void SlotPool::free(int index) {
  Slot& slot = at(index);
  for (int64_t layer = 0; layer < layers_; ++layer) {
    for (int m = 0; m < kModules; ++m) poison(slot, layer, static_cast<Module>(m));
  }
  for (size_t i = 0; i < slot.pages.size(); ++i) {
    std::vector<int32_t>& free_pages = groups_[i % kGroups].free;
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
