#include "device.h"

#include <array>
#include <chrono>
#include <cstdlib>
#include <map>
#include <vector>

#include "inputs.h"
#include "step.h"

namespace lorikeet::cuda {
namespace {

constexpr int64_t kPartialRowsSplits = 1024;
constexpr size_t kGraphsMax = 64;
// Of device memory that a launch in a graph takes: an upper bound to be measured on each kind of GPU.
constexpr int64_t kGraphLaunchBytes = 8 << 10;

bool is_on(const char* variable) {
  const char* value = std::getenv(variable);
  return value == nullptr || std::string(value) != "0";
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
  int64_t table_places() const { return model_.config.layers * kModules; }

  void take_memory();
  void allow_large_kernels() const;
  template <typename Key, typename Launches>
  void run(std::map<Key, std::unique_ptr<Graph>>& graphs, const Key& key, bool is_graph, Launches&& launches);

  const OpenRequest request_;
  Model model_;
  const PageMap pages_;
  int64_t kv_blocks_ = 0, kv_bytes_ = 0, table_bytes_ = 0, activation_bytes_ = 0, graph_bytes_ = 0;
  const bool uses_graphs_, overlaps_;

  std::vector<std::unique_ptr<DeviceMemory>> memory_;
  std::byte *weight_memory_ = nullptr, *page_memory_ = nullptr;
  Page* page_table_ = nullptr;
  Adapted* adapted_ = nullptr;
  Buffers buffers_{};

  Stream compute_;
  Uploads uploads_;
  std::unique_ptr<Inputs> inputs_;
  std::unique_ptr<PinnedMemory> results_;
  Step step_;

  std::map<StepShape, std::unique_ptr<Graph>> step_graphs_;
  std::map<int32_t, std::unique_ptr<Graph>> choose_graphs_;
};

ModelOnDevice::ModelOnDevice(const OpenRequest& request)
    : request_(with_room(request)),
      model_(model_of(request)),
      pages_(model_.config, request.slots, request.pages_max),
      uses_graphs_(is_on("LORIKEET_CUDA_GRAPHS")),
      overlaps_(has_dependent_launch() && is_on("LORIKEET_CUDA_PDL")),
      step_(model_, buffers_, compute_, overlaps_) {
  take_memory();
  results_ = std::make_unique<PinnedMemory>(
      static_cast<size_t>(std::max<int64_t>(model_.config.vocab * 4, kLogitRows * int64_t{sizeof(Chosen)})));
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
  // Sequences may share blocks: each table can be as long as all of them.
  const int64_t block_places = request_.sequences_max * std::min(kv_blocks_, blocks_for(c.context));
  const Inputs::Sizes inputs = {request_.slots, request_.pages_max, request_.rows_max, block_places,
                                uses_graphs_};
  activation_bytes_ += Inputs::bytes(inputs);
  const int64_t places = request_.slots * table_places();
  const auto array = [](auto*& data, int64_t count) {
    return Array{reinterpret_cast<void**>(&data), count * static_cast<int64_t>(sizeof *data)};
  };
  const Array tables[] = {array(page_table_, places * request_.pages_max), array(adapted_, places)};
  table_bytes_ = tables[0].bytes + tables[1].bytes;
  if (uses_graphs_) graph_bytes_ = int64_t{kGraphsMax} * Step::launches(c) * kGraphLaunchBytes;
  const int64_t needed =
      model_.map.bytes + kv_bytes_ + pages_.bytes + table_bytes_ + activation_bytes_ + graph_bytes_;
  const int64_t there = free_memory();
  if (needed > there) {
    throw DeviceError(FailureKind::kMemory,
                      "Expected " + std::to_string(needed) + " bytes of device memory (weights " +
                          std::to_string(model_.map.bytes) + ", KV cache " + std::to_string(kv_bytes_) +
                          ", adapters' pages " + std::to_string(pages_.bytes + table_bytes_) +
                          ", activations " + std::to_string(activation_bytes_) + ", graphs " +
                          std::to_string(graph_bytes_) + ") but " + std::to_string(there) + " are free");
  }
  all.insert(all.end(),
             {array(weight_memory_, model_.map.bytes), array(page_memory_, pages_.bytes), tables[0],
              tables[1], array(buffers_.keys, kv_bytes_ / 4), array(buffers_.values, kv_bytes_ / 4)});
  for (const Array& a : all) {
    memory_.push_back(std::make_unique<DeviceMemory>(static_cast<size_t>(a.bytes)));
    *a.data = memory_.back()->data();
  }
  inputs_ = std::make_unique<Inputs>(inputs, buffers_.step, buffers_.head);
  model_.weights = weight_memory_;
  buffers_.cache_layer = kv_bytes_ / 4 / c.layers;
  buffers_.table = {page_table_, adapted_, request_.model.layers, request_.pages_max};
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
  opened.graph_bytes = graph_bytes_;
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
  std::array<int32_t, kModules> most{};
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
  inputs_->set_pages(slot, most);
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
  const StepShape shape = inputs_->fill(request);
  inputs_->copy_step(compute_);
  run(step_graphs_, shape, uses_graphs_ && request.rows <= kFewRows, [&] { step_.run(shape); });
}

void ModelOnDevice::choose(const ChooseRequest& r, Chosen* chosen) {
  if (r.rows == 0) return compute_.synchronize();
  const HeadShape shape = inputs_->fill(r);
  inputs_->copy_head(compute_);
  run(choose_graphs_, shape.rows, uses_graphs_ && shape.jobs == 0,
      [&] { step_.choose_rows(shape.rows, shape.jobs); });
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
