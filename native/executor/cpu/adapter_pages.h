// The memory of adapters: pages of 16 ranks of one module group of one layer, and what each slot has in them.
//
//   page of a group = [A of its 1st module, one panel | A of its 2nd ... | B of its 1st module, panels of 16
//   columns | B of its 2nd ...]
//
// Ranks of a page beyond the module's are zero. write() and poison() change slots that no step reads.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "../mapped_memory.h"
#include "../plan.h"
#include "kernels/layout.h"

namespace lorikeet::cpu {

// One page's share of an adapted projection.
struct Factor {
  Panels a;  // [16 ranks, in]
  Panels b;  // [out, 16 ranks]
};

class AdapterPages {
 public:
  AdapterPages(const ModelConfig& config, Dtype stored, int64_t slots, int64_t max_rank);

  std::array<int64_t, kGroups> counts() const;
  // Of address space; what is never written costs nothing.
  int64_t bytes() const;

  // Returns how many tensors were rounded on the way.
  int64_t write(const StagePlan& plan, std::span<const std::byte> body);
  // A NaN at the head of each row of A makes every product of a stale reader NaN, and costs no more than the
  // rows.
  void poison(int slot);

  // Ranks and scale of an adapted projection; rank 0 where the revision does not adapt it.
  int64_t rank(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).rank; }
  float scale(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).scale; }
  Factor factor(int slot, int64_t layer, Module module, int64_t page) const;

 private:
  struct GroupMemory {
    int64_t pages = 0;
    int64_t page_elements = 0;
    MappedMemory memory;  // [pages, page_elements]
  };
  struct Place {           // of a module within its group's page
    int64_t a = 0, b = 0;  // offsets in elements
    int64_t in = 0, out_panels = 0;
  };
  struct Adapted {
    int64_t rank = 0;
    float scale = 0;
  };
  struct Slot {
    std::vector<Adapted> modules;             // [layers, kModules]
    std::vector<std::vector<int32_t>> pages;  // [layers, kGroups]
  };

  Slot& at(int slot) { return slots_[static_cast<size_t>(slot)]; }
  const Slot& at(int slot) const { return slots_[static_cast<size_t>(slot)]; }
  const Adapted& adapted(int slot, int64_t layer, Module module) const {
    return at(slot).modules[place_of(layer, module)];
  }
  int64_t write_module(int slot, const StageModule& m, std::span<const std::byte> body);

  const ModelConfig& config_;
  const Dtype stored_;
  std::array<Place, kModules> places_;
  std::array<GroupMemory, kGroups> groups_;
  std::vector<Slot> slots_;
};

}  // namespace lorikeet::cpu
