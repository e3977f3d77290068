#include "device.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <vector>

#include "mirror.h"
#include "step.h"

namespace lorikeet::cuda {
namespace {

constexpr int32_t kJobRows = 64;
constexpr int64_t kPartialRowsSplits = 1024;
constexpr size_t kGraphsMax = 64;
constexpr std::array kRowBuckets = {1, 2, 4, 8, 16, 24, 32, 48, 64};

bool is_on(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr || std::string(value) != "0";
}

int32_t rows_bucket(int32_t rows) {
  return *std::find_if(kRowBuckets.begin(), kRowBuckets.end(),
                       [&](int32_t bucket) { return bucket >= rows; });
}
// 0, 1, 4, 16, 64 ..
int32_t jobs_bucket(int32_t jobs) {
  int32_t bucket = jobs == 0 ? 0 : 1;
  while (bucket < jobs) bucket *= 4;
  return bucket;
}
int32_t splits_bucket(int32_t splits) {
  int32_t bucket = 1;
  while (bucket < splits) bucket *= 2;
  return bucket;
}

int32_t members_of(Group group) {
  int32_t members = 0;
  for (const ModuleInfo& module : kModuleTable) members += module.group == group;
  return members;
}

// Rows that padding adds need room too.
OpenRequest with_room(OpenRequest request) {
  if (request.rows_max <= kFewRows) request.rows_max = rows_bucket(request.rows_max);
  return request;
}

Model model_of(const OpenRequest& request) {
  const ModelConfig config = config_of(request.model);
  return {config, request.model, WeightMap(config, request.model.has_tied_head != 0), nullptr};
}

// Its memory, its streams, graphs of small steps.
class ModelOnDevice final : public Device {
 public:
  explicit ModelOnDevice(const OpenRequest& request);

  Opened describe() const override;
  Uploads& uploads() override { return uploads_; }
  void copy_weight(WeightKind kind, int32_t layer, int64_t offset, int64_t bytes) override;
  void copy_page(int64_t offset, int64_t bytes) override;
  void copy_slot(int32_t slot, const StagedPage* pages, const int32_t* ranks, const float* scales) override;

  void step(const StepRequest& request) override;
  void choose(const ChooseRequest& request, Chosen* chosen) override;
  void logits(int32_t i, float* to) override;
  void poison(int32_t slot) override;
  double measure(Measured what, int32_t rows, int32_t count) override;

 private:
  // What a step works in: each array with its size.
  struct Array {
    void** data;
    int64_t bytes;
  };
  std::vector<Array> arrays();
  int64_t step_input_bytes() const;
  int64_t jobs_max(Group group) const;
  int64_t table_places() const { return model_.config.layers * kModules; }

  void take_memory();
  void lay_out_inputs();
  void allow_large_kernels() const;
  int32_t add_jobs(const Run& run, Group group, Job* jobs, int32_t count) const;
  StepShape fill(const StepRequest& request);
  void pad(int32_t from, int32_t to);
  template <typename Key, typename Launches>
  void run(std::map<Key, std::unique_ptr<Graph>>& graphs, const Key& key, bool is_graph, Launches&& launches);

  const OpenRequest request_;
  Model model_;
  const PageMap pages_;
  int64_t kv_blocks_ = 0, kv_bytes_ = 0, table_bytes_ = 0, activation_bytes_ = 0;
  const bool uses_graphs_, overlaps_;

  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::byte *weight_memory_ = nullptr, *page_memory_ = nullptr;
  Page* page_table_ = nullptr;
  Adapted* adapted_ = nullptr;
  Buffers buffers_{};

  Stream compute_;
  Uploads uploads_;
  std::unique_ptr<Mirror> step_mirror_, head_mirror_;
  StepInputs step_host_{};
  HeadInputs head_host_{};
  std::unique_ptr<PinnedMemory> results_;
  Step step_;

  // Pages of each module of a slot, the most of any layer; [slots, kModules].
  std::vector<std::array<int32_t, kModules>> slot_pages_;
  std::map<StepShape, std::unique_ptr<Graph>> step_graphs_;
  std::map<int32_t, std::unique_ptr<Graph>> choose_graphs_;
};

ModelOnDevice::ModelOnDevice(const OpenRequest& request)
    : request_(with_room(request)),
      model_(model_of(request)),
      pages_(model_.config, request.slots, request.pages_max),
      uses_graphs_(is_on("LORIKEET_CUDA_GRAPHS")),
      overlaps_(has_dependent_launch() && is_on("LORIKEET_CUDA_PDL")),
      step_(model_, buffers_, compute_, overlaps_),
      slot_pages_(static_cast<size_t>(request.slots)) {
  take_memory();
  lay_out_inputs();
  allow_large_kernels();
  const auto rope_bytes = model_.config.context * model_.config.head_dim / 2 * 4;
  for (const auto& [from, at] : {std::pair{request.cos, model_.map.cos}, {request.sin, model_.map.sin}}) {
    for (int64_t done = 0, bytes = 0; done < rope_bytes; done += bytes) {
      bytes = rope_bytes - done;
      std::memcpy(uploads_.reserve(bytes), reinterpret_cast<const std::byte*>(from) + done,
                  static_cast<size_t>(bytes));
      uploads_.copy(weight_memory_ + at + done, bytes);
    }
  }
  uploads_.finish();
}

int64_t ModelOnDevice::jobs_max(Group group) const {
  return (request_.slots + request_.rows_max / kJobRows + 1) * members_of(group) * request_.pages_max;
}

std::vector<ModelOnDevice::Array> ModelOnDevice::arrays() {
  const ModelConfig& c = model_.config;
  const int64_t rows = request_.rows_max, stride = head_stride(c.head_dim);
  const int64_t units = (c.heads / c.kv_heads + kAttendHeads - 1) / kAttendHeads;
  const int64_t widest = std::max({qkv_dim(c), 2 * c.ffn, c.hidden});
  buffers_.partial_rows_splits = std::max<int64_t>(
      kPartialRowsSplits, splits_bucket(static_cast<int32_t>((c.context + kSplitTokens - 1) / kSplitTokens)));
  const auto array = [](auto*& data, int64_t count) {
    return Array{reinterpret_cast<void**>(&data), count * static_cast<int64_t>(sizeof *data)};
  };
  return {array(buffers_.x, rows * c.hidden),
          array(buffers_.normed, rows * padded(c.hidden)),
          array(buffers_.y, rows * widest),
          array(buffers_.h, rows * buffers_.h_stride),
          array(buffers_.q, rows * c.heads * stride),
          array(buffers_.attended, rows * padded(c.q_dim())),
          array(buffers_.acted, rows * padded(c.ffn)),
          array(buffers_.partial, buffers_.partial_rows_splits * c.heads * (stride + 2)),
          array(buffers_.arrived, rows * c.kv_heads * units),
          array(buffers_.head_normed, kLogitRows * padded(c.hidden)),
          array(buffers_.head_h, int64_t{kLogitRows} * request_.pages_max * kPageRanks),
          array(buffers_.logits, kLogitRows * c.vocab),
          array(buffers_.chosen, kLogitRows)};
}

int64_t ModelOnDevice::step_input_bytes() const {
  int64_t bytes = (5 * request_.rows_max + kGroups + kv_blocks_ + request_.rows_max) * 4;
  for (int g = 0; g < kGroups; ++g)
    bytes += jobs_max(static_cast<Group>(g)) * static_cast<int64_t>(sizeof(Job));
  return bytes + (kGroups + 7) * kAlign;
}

// Everything is counted before the first byte is taken.
void ModelOnDevice::take_memory() {
  const ModelConfig& c = model_.config;
  const int64_t block_bytes = 2 * c.layers * c.kv_heads * kBlockTokens * head_stride(c.head_dim) * 2;
  kv_blocks_ = std::min<int64_t>(request_.kv_bytes / block_bytes, INT32_MAX);
  if (kv_blocks_ < 1) {
    throw DeviceError(FailureKind::kMemory, "Expected at least " + std::to_string(block_bytes) +
                                                " (one block) for kvBytes but received " +
                                                std::to_string(request_.kv_bytes));
  }
  kv_bytes_ = kv_blocks_ * block_bytes;
  buffers_.h_stride = static_cast<int32_t>(3 * request_.pages_max * kPageRanks);
  std::vector<Array> all = arrays();
  for (const Array& array : all) activation_bytes_ += array.bytes;
  activation_bytes_ += step_input_bytes();
  const int64_t places = request_.slots * table_places();
  const auto array = [](auto*& data, int64_t count) {
    return Array{reinterpret_cast<void**>(&data), count * static_cast<int64_t>(sizeof *data)};
  };
  const Array tables[] = {array(page_table_, places * request_.pages_max), array(adapted_, places)};
  table_bytes_ = tables[0].bytes + tables[1].bytes;
  const int64_t needed = model_.map.bytes + kv_bytes_ + pages_.bytes + table_bytes_ + activation_bytes_;
  const int64_t there = free_memory();
  if (needed > there) {
    throw DeviceError(FailureKind::kMemory,
                      "Expected " + std::to_string(needed) + " bytes of device memory (weights " +
                          std::to_string(model_.map.bytes) + ", KV cache " + std::to_string(kv_bytes_) +
                          ", adapters' pages " + std::to_string(pages_.bytes + table_bytes_) +
                          ", activations " + std::to_string(activation_bytes_) + ") but " +
                          std::to_string(there) + " are free");
  }
  all.insert(all.end(),
             {array(weight_memory_, model_.map.bytes), array(page_memory_, pages_.bytes), tables[0],
              tables[1], array(buffers_.keys, kv_bytes_ / 4), array(buffers_.values, kv_bytes_ / 4)});
  for (const Array& a : all) {
    memory_.push_back(std::make_unique<DeviceMemory>(static_cast<size_t>(a.bytes)));
    *a.data = memory_.back()->data();
  }
  model_.weights = weight_memory_;
  buffers_.cache_layer = kv_bytes_ / 4 / c.layers;
  buffers_.table = {page_table_, adapted_, request_.model.layers, request_.pages_max};
}

void ModelOnDevice::lay_out_inputs() {
  const int64_t rows = request_.rows_max;
  step_mirror_ = std::make_unique<Mirror>(step_input_bytes());
  StepInputs &host = step_host_, &device = buffers_.step;
  step_mirror_->take(host.tokens, device.tokens, rows);
  step_mirror_->take(host.positions, device.positions, rows);
  step_mirror_->take(host.slots, device.slots, rows);
  step_mirror_->take(host.table_of, device.table_of, rows);
  step_mirror_->take(host.scales, device.scales, rows);
  step_mirror_->take(host.job_counts, device.job_counts, kGroups);
  for (size_t g = 0; g < kGroups; ++g) {
    step_mirror_->take(host.jobs[g], device.jobs[g], jobs_max(static_cast<Group>(g)));
  }
  step_mirror_->take(host.tables, device.tables, kv_blocks_ + rows);

  HeadInputs &head = head_host_, &head_device = buffers_.head;
  const int64_t jobs = (kLogitRows + 1) * int64_t{request_.pages_max};
  head_mirror_ = std::make_unique<Mirror>(kLogitRows * int64_t{12 + sizeof(Wanted)} +
                                          jobs * static_cast<int64_t>(sizeof(Job)) + 8 * kAlign);
  head_mirror_->take(head.rows, head_device.rows, kLogitRows);
  head_mirror_->take(head.slots, head_device.slots, kLogitRows);
  head_mirror_->take(head.scales, head_device.scales, kLogitRows);
  head_mirror_->take(head.wanted, head_device.wanted, kLogitRows);
  head_mirror_->take(head.job_count, head_device.job_count, 1);
  head_mirror_->take(head.jobs, head_device.jobs, jobs);
  results_ = std::make_unique<PinnedMemory>(
      static_cast<size_t>(std::max<int64_t>(model_.config.vocab * 4, kLogitRows * int64_t{sizeof(Chosen)})));
}

void ModelOnDevice::allow_large_kernels() const {
  allow_shared(linear<2, 8>, sizeof(float) * kWarps * 16 * 2 * 8 * 8);
  allow_shared(linear_wide, kWideShared);
}

Opened ModelOnDevice::describe() const {
  Opened opened{};
  std::snprintf(opened.name, sizeof opened.name, "%s", device_name().c_str());
  opened.kv_blocks = kv_blocks_;
  opened.weight_bytes = model_.map.bytes;
  opened.kv_bytes = kv_bytes_;
  opened.page_bytes = pages_.bytes + table_bytes_;
  opened.activation_bytes = activation_bytes_;
  return opened;
}

void ModelOnDevice::copy_weight(WeightKind kind, int32_t layer, int64_t offset, int64_t bytes) {
  uploads_.copy(weight_memory_ + model_.map.of(kind, layer) + offset, bytes);
}

void ModelOnDevice::copy_page(int64_t offset, int64_t bytes) { uploads_.copy(page_memory_ + offset, bytes); }

// The table's entries come after the pages that they name, on the same stream.
void ModelOnDevice::copy_slot(int32_t slot, const StagedPage* pages, const int32_t* ranks,
                              const float* scales) {
  const int64_t places = table_places(), pages_max = request_.pages_max;
  std::array<int32_t, kModules>& most = slot_pages_[static_cast<size_t>(slot)];
  most.fill(0);
  const auto copy_all = [&](auto* to, int64_t count, const auto& entry) {
    using Entry = std::remove_reference_t<decltype(*to)>;
    for (int64_t done = 0, bytes = 0; done < count; done += bytes / static_cast<int64_t>(sizeof(Entry))) {
      bytes = (count - done) * static_cast<int64_t>(sizeof(Entry));
      auto* staged = reinterpret_cast<Entry*>(uploads_.reserve(bytes));
      bytes = bytes / static_cast<int64_t>(sizeof(Entry)) * static_cast<int64_t>(sizeof(Entry));
      for (int64_t i = 0; i < bytes / static_cast<int64_t>(sizeof(Entry)); ++i) staged[i] = entry(done + i);
      uploads_.copy(reinterpret_cast<std::byte*>(to + done), bytes);
    }
  };
  copy_all(page_table_ + slot * places * pages_max, places * pages_max, [&](int64_t i) {
    return Page{reinterpret_cast<const Bf16*>(page_memory_ + pages[i].a),
                reinterpret_cast<const Bf16*>(page_memory_ + pages[i].b)};
  });
  copy_all(adapted_ + slot * places, places, [&](int64_t i) {
    int32_t& of_module = most[static_cast<size_t>(i % kModules)];
    of_module = std::max(of_module, static_cast<int32_t>(pages_for(ranks[i])));
    return Adapted{ranks[i], scales[i]};
  });
}

// The shrink jobs of a run of rows; returns how many there are then.
int32_t ModelOnDevice::add_jobs(const Run& run, Group group, Job* jobs, int32_t count) const {
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

StepShape ModelOnDevice::fill(const StepRequest& r) {
  StepInputs& host = step_host_;
  const auto rows = static_cast<size_t>(r.rows);
  std::copy_n(r.tokens, rows, host.tokens);
  std::copy_n(r.positions, rows, host.positions);
  std::copy_n(r.scales, rows, host.scales);
  std::fill_n(host.slots, rows, -1);
  std::copy_n(r.table_of, rows, host.table_of);
  std::copy_n(r.tables, r.tables_length, host.tables);
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
  if (r.rows > kFewRows || !uses_graphs_) return shape;

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

void ModelOnDevice::pad(int32_t from, int32_t to) {
  for (int32_t i = from; i < to; ++i) {
    step_host_.tokens[i] = step_host_.positions[i] = 0;
    step_host_.slots[i] = step_host_.table_of[i] = -1;
    step_host_.scales[i] = 0;
  }
}

template <typename Key, typename Launches>
void ModelOnDevice::run(std::map<Key, std::unique_ptr<Graph>>& graphs, const Key& key, bool is_graph,
                        Launches&& launches) {
  if (!is_graph) return launches();
  std::unique_ptr<Graph>& graph =
      graphs.size() < kGraphsMax || graphs.contains(key) ? graphs[key] : (graphs.clear(), graphs[key]);
  if (!graph) graph = std::make_unique<Graph>(compute_, launches);
  graph->launch(compute_);
}

void ModelOnDevice::step(const StepRequest& request) {
  const StepShape shape = fill(request);
  step_mirror_->copy_in(compute_, step_host_.tables + request.tables_length);
  run(step_graphs_, shape, uses_graphs_ && request.rows <= kFewRows, [&] { step_.run(shape); });
}

void ModelOnDevice::choose(const ChooseRequest& r, Chosen* chosen) {
  if (r.rows == 0) return compute_.synchronize();
  HeadInputs& host = head_host_;
  const int32_t rows = uses_graphs_ ? rows_bucket(r.rows) : r.rows;
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
  head_mirror_->copy_in(compute_, host.jobs + jobs);
  run(choose_graphs_, rows, uses_graphs_ && jobs == 0, [&] { step_.choose_rows(rows, jobs); });
  const size_t bytes = sizeof(Chosen) * static_cast<size_t>(r.rows);
  compute_.copy_out(results_->data(), buffers_.chosen, bytes);
  compute_.synchronize();
  std::memcpy(chosen, results_->data(), bytes);
}

void ModelOnDevice::logits(int32_t i, float* to) {
  const size_t bytes = sizeof(float) * static_cast<size_t>(model_.config.vocab);
  compute_.copy_out(results_->data(), buffers_.logits + i * model_.config.vocab, bytes);
  compute_.synchronize();
  std::memcpy(to, results_->data(), bytes);
}

// On the stream of copies: before whatever is staged into these pages later.
void ModelOnDevice::poison(int32_t slot) {
  const int64_t places = table_places();
  PoisonArgs p{
      page_table_ + slot * places * request_.pages_max, adapted_ + slot * places, request_.pages_max, {}};
  for (int m = 0; m < kModules; ++m) {
    p.cols[m] = static_cast<int32_t>(padded(module_in(model_.config, static_cast<Module>(m))));
  }
  launch({dim3(static_cast<unsigned>(places)), dim3(32), 0, uploads_.stream(), false}, cuda::poison, p);
}

double ModelOnDevice::measure(Measured what, int32_t rows, int32_t count) {
  const auto once = [&] {
    if (what != Measured::kCopy) return step_.measure(what, rows);
    compute_.copy_within(buffers_.values, buffers_.keys, static_cast<size_t>(kv_bytes_ / 2));
  };
  once();
  compute_.synchronize();
  const auto began = std::chrono::steady_clock::now();
  for (int32_t i = 0; i < count; ++i) once();
  compute_.synchronize();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

}  // namespace

std::unique_ptr<Device> Device::open(const OpenRequest& request) {
  return std::make_unique<ModelOnDevice>(request);
}

}  // namespace lorikeet::cuda
