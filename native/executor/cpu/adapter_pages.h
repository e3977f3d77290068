// The memory of adapters: pages of 16 ranks of one module group of one layer, and what each slot has in them.
//
//   page of a group = [A of its 1st module [16, in] | A of its 2nd ... | B of its 1st module [out, 16] | B of
//   its 2nd ...]
//
// write() and poison() change slots that no step reads.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "../plan.h"
#include "mapped_memory.h"

namespace lorikeet::cpu {

// One page's share of an adapted projection.
struct Factor {
  const float* a = nullptr;  // [ranks, in]
  const float* b = nullptr;  // [out, kPageRanks]
  int64_t ranks = 0;
};

class AdapterPages {
 public:
  AdapterPages(const ModelConfig& config, int64_t slots, int64_t max_rank);

  // Of each group.
  int64_t count() const { return pages_; }

  void write(const StagePlan& plan, std::span<const std::byte> body);
  // A NaN at the head of each row of A makes every product of a stale reader NaN, and costs no more than the
  // rows.
  void poison(int slot);

  // Ranks and scale of an adapted projection; rank 0 where the revision does not adapt it.
  int64_t rank(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).rank; }
  float scale(int slot, int64_t layer, Module module) const { return adapted(slot, layer, module).scale; }
  Factor factor(int slot, int64_t layer, Module module, int64_t page) const;

 private:
  struct GroupMemory {
    int64_t page_floats = 0;
    MappedMemory memory;  // [pages, page_floats]
  };
  struct Offsets {  // of a module within its group's page, in floats
    int64_t a = 0, b = 0;
  };
  struct Adapted {
    int64_t rank = 0;
    float scale = 0;
  };
  struct Slot {
    std::vector<Adapted> modules;             // [layers, kModules]
    std::vector<std::vector<int32_t>> pages;  // [layers, kGroups]
  };
  struct Place {  // of one page's part of a module
    float* a = nullptr;
    float* b = nullptr;
    int64_t ranks = 0;
  };

  const Slot& at(int slot) const { return slots_[static_cast<size_t>(slot)]; }
  const Adapted& adapted(int slot, int64_t layer, Module module) const {
    return at(slot).modules[place_of(layer, module)];
  }
  Place place(int slot, int64_t layer, Module module, int64_t page) const;
  void write_module(int slot, const StageModule& m, std::span<const std::byte> body);

  const ModelConfig& config_;
  int64_t pages_ = 0;
  std::array<Offsets, kModules> offsets_;
  std::array<GroupMemory, kGroups> groups_;
  std::vector<Slot> slots_;
};

}  // namespace lorikeet::cpu
