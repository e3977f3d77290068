#include "adapter_pages.h"

#include <algorithm>
#include <limits>

#include "../error.h"
#include "kernels/dtypes.h"

namespace lorikeet::cpu {

AdapterPages::AdapterPages(const ModelConfig& config, int64_t slots, int64_t max_rank)
    : config_(config),
      pages_(slots * config.layers * pages_for(max_rank)),
      slots_(static_cast<size_t>(slots)) {
  for (size_t m = 0; m < kModules; ++m) {
    const auto module = static_cast<Module>(m);
    int64_t& used = groups_[static_cast<size_t>(group_of(module))].page_floats;
    const int64_t in = module_in(config, module);
    offsets_[m] = {used, used + kPageRanks * in};
    used += kPageRanks * (in + module_out(config, module));
  }
  if (pages_ > std::numeric_limits<int32_t>::max()) {
    throw EngineError::invalid("slots", "Expected fewer slots: their pages cannot be numbered");
  }
  for (GroupMemory& group : groups_) {
    group.memory = MappedMemory::anonymous(static_cast<size_t>(pages_ * group.page_floats) * sizeof(float));
  }
  for (Slot& slot : slots_) {
    slot.modules.resize(static_cast<size_t>(config.layers * kModules));
    slot.pages.resize(static_cast<size_t>(config.layers * kGroups));
  }
}

AdapterPages::Place AdapterPages::place(int slot, int64_t layer, Module module, int64_t page) const {
  const Group group = group_of(module);
  const GroupMemory& memory = groups_[static_cast<size_t>(group)];
  const Offsets& offsets = offsets_[static_cast<size_t>(module)];
  float* base = memory.memory.floats() +
                at(slot).pages[place_of(layer, group)][static_cast<size_t>(page)] * memory.page_floats;
  return {base + offsets.a, base + offsets.b,
          std::min(kPageRanks, rank(slot, layer, module) - page * kPageRanks)};
}

Factor AdapterPages::factor(int slot, int64_t layer, Module module, int64_t page) const {
  const Place p = place(slot, layer, module, page);
  return {p.a, p.b, p.ranks};
}

void AdapterPages::write(const StagePlan& plan, std::span<const std::byte> body) {
  Slot& slot = slots_[static_cast<size_t>(plan.slot)];
  slot.pages.assign(plan.pages.begin(), plan.pages.end());
  std::fill(slot.modules.begin(), slot.modules.end(), Adapted{});
  for (const StageModule& m : plan.modules) {
    slot.modules[place_of(m.layer, m.module)] = {m.rank, m.scale};
    write_module(plan.slot, m, body);
  }
}

void AdapterPages::write_module(int slot, const StageModule& m, std::span<const std::byte> body) {
  const int64_t in = module_in(config_, m.module), out = module_out(config_, m.module);
  const std::byte* a = body.data() + m.a_offset;
  const std::byte* b = body.data() + m.b_offset;
  for (int64_t page = 0; page < pages_for(m.rank); ++page) {
    const Place to = place(slot, m.layer, m.module, page);
    const int64_t rank0 = page * kPageRanks;
    // A: ranks rank0 .. of the page, [ranks, in]
    widen(to.a, a + rank0 * in * dtype_bytes(m.a_dtype), m.a_dtype, to.ranks * in);
    // B: columns rank0 .. of every row, zero beyond the ranks, [out, kPageRanks]
    for (int64_t o = 0; o < out; ++o) {
      float* row = to.b + o * kPageRanks;
      widen(row, b + (o * m.rank + rank0) * dtype_bytes(m.b_dtype), m.b_dtype, to.ranks);
      std::fill(row + to.ranks, row + kPageRanks, 0.0f);
    }
  }
}

void AdapterPages::poison(int slot) {
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      const int64_t in = module_in(config_, module);
      for (int64_t page = 0; page < pages_for(rank(slot, layer, module)); ++page) {
        const Place freed = place(slot, layer, module, page);
        for (int64_t r = 0; r < freed.ranks; ++r) freed.a[r * in] = std::numeric_limits<float>::quiet_NaN();
      }
    }
  }
  std::fill(slots_[static_cast<size_t>(slot)].modules.begin(),
            slots_[static_cast<size_t>(slot)].modules.end(), Adapted{});
}

}  // namespace lorikeet::cpu
