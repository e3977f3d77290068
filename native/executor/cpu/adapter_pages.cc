#include "adapter_pages.h"

#include <algorithm>
#include <limits>

#include "../error.h"
#include "kernels/pack.h"

namespace lorikeet::cpu {

AdapterPages::AdapterPages(const ModelConfig& config, Dtype stored, int64_t slots, int64_t max_rank)
    : config_(config), stored_(stored), slots_(static_cast<size_t>(slots)) {
  const auto each_module = [&](auto visit) {
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      visit(places_[static_cast<size_t>(m)], groups_[static_cast<size_t>(group_of(module))].page_elements,
            module);
    }
  };
  each_module([&](Place& place, int64_t& used, Module module) {
    place.in = round_up(module_in(config, module), kColumnStep);
    place.out_panels = panels_for(module_out(config, module));
    place.a = used;
    used += kPageRanks * place.in;
  });
  each_module([&](Place& place, int64_t& used, Module) {
    place.b = used;
    used += place.out_panels * kPanelOuts * kPageRanks;
  });
  for (size_t g = 0; g < kGroups; ++g) {
    GroupMemory& group = groups_[g];
    group.pages = slots * layers_of(static_cast<Group>(g), config.layers) * pages_for(max_rank);
    if (group.pages > std::numeric_limits<int32_t>::max()) {
      throw EngineError::invalid("slots", "Expected fewer slots: their pages cannot be numbered");
    }
    group.memory =
        MappedMemory::anonymous(static_cast<size_t>(group.pages * group.page_elements * dtype_bytes(stored)));
  }
  for (Slot& slot : slots_) {
    slot.modules.resize(static_cast<size_t>(config.layers * kModules));
    slot.pages.resize(static_cast<size_t>(config.layers * kGroups));
  }
}

std::array<int64_t, kGroups> AdapterPages::counts() const {
  std::array<int64_t, kGroups> counts{};
  for (size_t g = 0; g < kGroups; ++g) counts[g] = groups_[g].pages;
  return counts;
}

int64_t AdapterPages::bytes() const {
  size_t sum = 0;
  for (const GroupMemory& group : groups_) sum += group.memory.bytes();
  return static_cast<int64_t>(sum);
}

Factor AdapterPages::factor(int slot, int64_t layer, Module module, int64_t page) const {
  const Group group = group_of(module);
  const GroupMemory& memory = groups_[static_cast<size_t>(group)];
  const Place& place = places_[static_cast<size_t>(module)];
  const int64_t id = at(slot).pages[place_of(layer, group)][static_cast<size_t>(page)];
  const std::byte* base = memory.memory.data() + id * memory.page_elements * dtype_bytes(stored_);
  return {{base + place.a * dtype_bytes(stored_), stored_, 1, place.in},
          {base + place.b * dtype_bytes(stored_), stored_, place.out_panels, kPageRanks}};
}

int64_t AdapterPages::write(const StagePlan& plan, std::span<const std::byte> body) {
  Slot& slot = at(plan.slot);
  slot.pages.assign(plan.pages.begin(), plan.pages.end());
  std::fill(slot.modules.begin(), slot.modules.end(), Adapted{});
  int64_t rounded = 0;
  for (const StageModule& m : plan.modules) {
    slot.modules[place_of(m.layer, m.module)] = {m.rank, m.scale};
    rounded += write_module(plan.slot, m, body);
  }
  return rounded;
}

int64_t AdapterPages::write_module(int slot, const StageModule& m, std::span<const std::byte> body) {
  const int64_t in = module_in(config_, m.module), out = module_out(config_, m.module);
  const std::byte* a = body.data() + m.a_offset;
  const std::byte* b = body.data() + m.b_offset;
  bool a_exact = true, b_exact = true;
  for (int64_t page = 0; page < pages_for(m.rank); ++page) {
    const Factor to = factor(slot, m.layer, m.module, page);
    const int64_t rank0 = page * kPageRanks, ranks = std::min(kPageRanks, m.rank - rank0);
    // The pages are this executor's own; Panels points at them as readers do.
    const auto write = [](const Panels& panels, const Matrix& from) {
      return pack(panels, const_cast<void*>(panels.data), from, 0, panels.panels);
    };
    a_exact &= write(to.a, {a + rank0 * in * dtype_bytes(m.a_dtype), m.a_dtype, ranks, in, in});
    b_exact &= write(to.b, {b + rank0 * dtype_bytes(m.b_dtype), m.b_dtype, out, ranks, m.rank});
  }
  return !a_exact + !b_exact;
}

void AdapterPages::poison(int slot) {
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      for (int64_t page = 0; page < pages_for(rank(slot, layer, module)); ++page) {
        const Panels a = factor(slot, layer, module, page).a;
        constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
        const Matrix nans = {&kNaN, Dtype::kF32, kPageRanks, 1, 0};
        pack({a.data, a.dtype, 1, 2}, const_cast<void*>(a.data), nans, 0, 1);
      }
    }
  }
  std::fill(at(slot).modules.begin(), at(slot).modules.end(), Adapted{});
}

}  // namespace lorikeet::cpu
