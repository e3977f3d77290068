// What a step reads from the host, written into arrays that both have alike, and the sizes of grids that
// follow from it.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "mirror.h"
#include "step.h"

namespace lorikeet::cuda {

constexpr int32_t kJobRows = 64;  // of a shrink job, at most
constexpr std::array kRowBuckets = {1, 2, 4, 8, 16, 24, 32, 48, 64};

inline int32_t rows_bucket(int32_t rows) {
  return *std::find_if(kRowBuckets.begin(), kRowBuckets.end(),
                       [&](int32_t bucket) { return bucket >= rows; });
}
// 0, 1, 4, 16, 64 ..
inline int32_t jobs_bucket(int32_t jobs) {
  int32_t bucket = jobs == 0 ? 0 : 1;
  while (bucket < jobs) bucket *= 4;
  return bucket;
}
inline int32_t splits_bucket(int32_t splits) {
  int32_t bucket = 1;
  while (bucket < splits) bucket *= 2;
  return bucket;
}

inline int32_t members_of(Group group) {
  int32_t members = 0;
  for (const ModuleInfo& module : kModuleTable) members += module.group == group;
  return members;
}

// Of the rows whose logits are wanted.
struct HeadShape {
  int32_t rows = 0;
  int32_t jobs = 0;
};

class Inputs {
 public:
  struct Sizes {
    int64_t slots, pages_max, rows_max;
    int64_t tables;     // places in the block tables of a step's sequences
    bool uses_buckets;  // pads small steps to those that graphs are captured for
  };

  static int64_t bytes(const Sizes& s) { return step_bytes(s) + head_bytes(s); }

  // Says where the arrays are on the device.
  Inputs(const Sizes& sizes, StepInputs& step, HeadInputs& head)
      : sizes_(sizes),
        step_mirror_(step_bytes(sizes)),
        head_mirror_(head_bytes(sizes)),
        slot_pages_(static_cast<size_t>(sizes.slots)) {
    const int64_t rows = sizes.rows_max;
    StepInputs& host = step_host_;
    step_mirror_.take(host.tokens, step.tokens, rows);
    step_mirror_.take(host.positions, step.positions, rows);
    step_mirror_.take(host.slots, step.slots, rows);
    step_mirror_.take(host.table_of, step.table_of, rows);
    step_mirror_.take(host.scales, step.scales, rows);
    step_mirror_.take(host.job_counts, step.job_counts, kGroups);
    for (size_t g = 0; g < kGroups; ++g) {
      step_mirror_.take(host.jobs[g], step.jobs[g], jobs_max(sizes, static_cast<Group>(g)));
    }
    step_mirror_.take(host.tables, step.tables, sizes.tables);

    HeadInputs& of_head = head_host_;
    head_mirror_.take(of_head.rows, head.rows, kLogitRows);
    head_mirror_.take(of_head.slots, head.slots, kLogitRows);
    head_mirror_.take(of_head.scales, head.scales, kLogitRows);
    head_mirror_.take(of_head.wanted, head.wanted, kLogitRows);
    head_mirror_.take(of_head.job_count, head.job_count, 1);
    head_mirror_.take(of_head.jobs, head.jobs, head_jobs(sizes));
  }

  // Pages of each module of a slot, the most of any layer.
  void set_pages(int32_t slot, const std::array<int32_t, kModules>& pages) {
    slot_pages_[static_cast<size_t>(slot)] = pages;
  }

  StepShape fill(const StepRequest& r) {
    StepInputs& host = step_host_;
    const auto rows = static_cast<size_t>(r.rows);
    std::copy_n(r.tokens, rows, host.tokens);
    std::copy_n(r.positions, rows, host.positions);
    std::copy_n(r.scales, rows, host.scales);
    std::fill_n(host.slots, rows, -1);
    std::copy_n(r.table_of, rows, host.table_of);
    std::copy_n(r.tables, r.tables_length, host.tables);
    step_end_ = host.tables + r.tables_length;
    StepShape shape;
    shape.rows = r.rows;
    shape.splits = *std::max_element(r.positions, r.positions + r.rows) / kSplitTokens + 1;
    for (int32_t i = 0; i < r.runs; ++i)
      std::fill_n(host.slots + r.of_slots[i].row, r.of_slots[i].rows, r.of_slots[i].slot);
    int32_t per_member = 0;
    for (size_t g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      int32_t& count = host.job_counts[g];
      count = 0;
      if (!is_in_layers(group)) continue;
      for (int32_t i = 0; i < r.runs; ++i) count = add_jobs(r.of_slots[i], group, host.jobs[g], count);
      per_member = std::max(per_member, (count + members_of(group) - 1) / members_of(group));
      shape.jobs[g] = count;
    }
    // What only the embedding or the head adapts is adapter code too.
    if (r.runs > 0) shape.jobs[static_cast<size_t>(Group::kEmbed)] = 1;
    if (r.rows > kFewRows || !sizes_.uses_buckets) return shape;

    // A bucket's grids.
    shape.rows = rows_bucket(r.rows);
    shape.splits = splits_bucket(shape.splits);
    for (size_t g = 0; g < kGroups; ++g) {
      const auto group = static_cast<Group>(g);
      if (is_in_layers(group)) shape.jobs[g] = jobs_bucket(per_member) * members_of(group);
    }
    pad(r.rows, shape.rows);
    return shape;
  }

  HeadShape fill(const ChooseRequest& r) {
    HeadInputs& host = head_host_;
    const int32_t rows = sizes_.uses_buckets ? rows_bucket(r.rows) : r.rows;
    for (int32_t i = 0; i < rows; ++i) {
      host.wanted[i] = i < r.rows ? r.wanted[i] : Wanted{r.wanted[0].row, 0, -1, 0, 0, 1, 0, 0};
      host.rows[i] = host.wanted[i].row;
      host.slots[i] = -1;
      host.scales[i] = i < r.rows ? r.scales[i] : 0;
    }
    int32_t jobs = 0;
    for (int32_t i = 0; i < r.runs; ++i) {
      const Run& run = r.of_slots[i];
      const int32_t before = jobs;
      jobs = add_jobs(run, Group::kHead, host.jobs, jobs);
      if (jobs > before) std::fill_n(host.slots + run.row, run.rows, run.slot);
    }
    *host.job_count = jobs;
    head_end_ = host.jobs + jobs;
    return {rows, jobs};
  }

  void copy_step(const Stream& stream) const { step_mirror_.copy_in(stream, step_end_); }
  void copy_head(const Stream& stream) const { head_mirror_.copy_in(stream, head_end_); }

 private:
  static int64_t jobs_max(const Sizes& s, Group group) {
    return (s.slots + s.rows_max / kJobRows + 1) * members_of(group) * s.pages_max;
  }
  static int64_t head_jobs(const Sizes& s) { return (kLogitRows + 1) * s.pages_max; }
  static int64_t step_bytes(const Sizes& s) {
    int64_t bytes = (5 * s.rows_max + kGroups + s.tables) * 4 + (kGroups + 7) * kAlign;
    for (int g = 0; g < kGroups; ++g) {
      bytes += jobs_max(s, static_cast<Group>(g)) * static_cast<int64_t>(sizeof(Job));
    }
    return bytes;
  }
  static int64_t head_bytes(const Sizes& s) {
    return kLogitRows * int64_t{12 + sizeof(Wanted)} + head_jobs(s) * static_cast<int64_t>(sizeof(Job)) +
           8 * kAlign;
  }

  // The shrink jobs of a run of rows; returns how many there are then.
  int32_t add_jobs(const Run& run, Group group, Job* jobs, int32_t count) const {
    int32_t member = 0;
    for (int m = 0; m < kModules; ++m) {
      const auto module = static_cast<Module>(m);
      if (group_of(module) != group) continue;
      for (int32_t page = 0; page < slot_pages_[static_cast<size_t>(run.slot)][static_cast<size_t>(m)];
           ++page) {
        for (int32_t row = 0; row < run.rows; row += kJobRows) {
          jobs[count++] = {run.slot, module, member, page, run.row + row, std::min(kJobRows, run.rows - row)};
        }
      }
      ++member;
    }
    return count;
  }

  void pad(int32_t from, int32_t to) {
    for (int32_t i = from; i < to; ++i) {
      step_host_.tokens[i] = step_host_.positions[i] = 0;
      step_host_.slots[i] = step_host_.table_of[i] = -1;
      step_host_.scales[i] = 0;
    }
  }

  const Sizes sizes_;
  Mirror step_mirror_, head_mirror_;
  StepInputs step_host_{};
  HeadInputs head_host_{};
  const void *step_end_ = nullptr, *head_end_ = nullptr;  // of what the next copy brings
  std::vector<std::array<int32_t, kModules>> slot_pages_;
};

}  // namespace lorikeet::cuda
