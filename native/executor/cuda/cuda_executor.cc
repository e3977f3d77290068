#include "cuda_executor.h"

#include <algorithm>
#include <chrono>

#include "../model_files.h"
#include "library.h"
#include "pinned_writer.h"
#include "weights.h"

namespace lorikeet::cuda {
namespace {

// Blocks of a grid along its second and third axis.
constexpr int64_t kRowsMax = 65535;

int32_t int32(int64_t n) { return static_cast<int32_t>(n); }

// Only what the device computes; the rest is for the host.
bool is_for_host(const LogitRow& row) {
  if (row.top > kTopMax) return true;
  if (row.scored >= 0) return row.sampling != nullptr && row.sampling->changes_logprobs();
  return row.sampling->changes_logits() || (row.top >= 0 && row.sampling->changes_logprobs());
}

Wanted wanted_of(const LogitRow& row) {
  Wanted wanted{int32(row.row), row.scored, int32(row.top), 0, 0, 1, 0, 0};
  if (is_for_host(row)) {
    wanted.scored = 0;
    wanted.top = -1;
  } else if (row.scored < 0) {
    const SamplingParams& sampling = *row.sampling;
    wanted.top_k = int32(std::min<int64_t>(sampling.top_k, INT32_MAX));
    wanted.temperature = static_cast<float>(sampling.temperature);
    wanted.top_p = static_cast<float>(sampling.top_p);
    wanted.min_p = static_cast<float>(sampling.min_p);
    wanted.uniform = uniform_at(sampling.seed, row.tokens.size());
  }
  return wanted;
}

ModelShape shape_of(const ModelDescriptor& descriptor) {
  const ModelConfig& c = descriptor.config;
  if (c.head_dim > kHeadDimMaxCuda) {
    throw EngineError::invalid("headDim", "Expected at most " + std::to_string(kHeadDimMaxCuda) +
                                              " for headDim with the cuda backend but received " +
                                              std::to_string(c.head_dim));
  }
  const auto any = [&](auto has) {
    return std::any_of(descriptor.layers.begin(), descriptor.layers.end(), has);
  };
  const auto has_norms = [](const LayerTensors& l) { return l.q_norm && l.k_norm; };
  if (any([](const LayerTensors& l) { return l.q_norm || l.k_norm; }) &&
      !std::all_of(descriptor.layers.begin(), descriptor.layers.end(), has_norms)) {
    throw EngineError::invalid("qNorm", "Expected norms of q and k in all layers or in none");
  }
  return {int32(c.layers),   int32(c.hidden),
          int32(c.heads),    int32(c.kv_heads),
          int32(c.head_dim), int32(c.ffn),
          int32(c.vocab),    int32(c.context),
          c.rms_eps,         any([](const LayerTensors& l) { return l.q_bias || l.k_bias || l.v_bias; }),
          any(has_norms),    has_tied_head(descriptor)};
}

}  // namespace

CudaExecutor::CudaExecutor(const ExecutorOptions& options, const Api& api)
    : api_(api),
      config_(options.model.config),
      pages_max_(pages_for(options.max_rank)),
      pages_(config_, options.slots, pages_max_),
      device_(open(options)),
      sampler_(config_.vocab),
      logits_(static_cast<size_t>(config_.vocab)) {}

std::unique_ptr<void, CudaExecutor::Closer> CudaExecutor::open(const ExecutorOptions& options) {
  if (options.compute == Compute::kFloat32) {
    throw EngineError::invalid(
        "dtype", "Expected auto or bfloat16 for dtype with the cuda backend but received float32");
  }
  if (options.max_batch_tokens > kRowsMax) {
    throw EngineError::invalid("maxBatchTokens",
                               "Expected at most " + std::to_string(kRowsMax) +
                                   " for maxBatchTokens with the cuda backend but received " +
                                   std::to_string(options.max_batch_tokens));
  }
  const ModelFiles files(options.model);
  const RopeTable rope = rope_table(config_);
  const OpenRequest request{
      shape_of(options.model),  int32(options.slots), int32(pages_max_), int32(options.max_batch_tokens),
      int32(options.max_batch), options.kv_bytes,     rope.cos.data(),   rope.sin.data()};
  Opened opened{};
  Failure failure{};
  check(api_.open(&request, &opened, &failure), failure);
  std::unique_ptr<void, Closer> device(opened.device, Closer{&api_});
  upload_weights(options.model, files, api_, device.get(), options.progress);
  limits_.backend = std::string("cuda, ") + opened.name;
  limits_.stored = Dtype::kBF16;
  limits_.kv_blocks = opened.kv_blocks;
  limits_.pages = pages_.pages;
  limits_.memory = {opened.weight_bytes, opened.kv_bytes, opened.page_bytes, opened.activation_bytes,
                    opened.graph_bytes};
  return device;
}

void CudaExecutor::step(const StepPlan& plan, StepResult& result, const std::function<void()>& meanwhile) {
  const auto began = std::chrono::steady_clock::now();
  result.assign(plan.logit_rows.size(), {});
  submit(plan);
  meanwhile();
  // At least once, for what the device did is known only then.
  const auto wanted = static_cast<int64_t>(plan.logit_rows.size());
  for (int64_t first = 0; first < std::max<int64_t>(wanted, 1); first += kLogitRows) {
    choose(plan, first, int32(std::min<int64_t>(wanted - first, kLogitRows)), result);
  }
  nanoseconds_ += (std::chrono::steady_clock::now() - began).count();
}

void CudaExecutor::submit(const StepPlan& plan) {
  runs_.clear();
  for (const Segment& s : plan.segments) runs_.push_back({s.slot, int32(s.row), int32(s.rows)});
  tables_.clear();
  table_of_.clear();
  for (const SequenceRows& s : plan.sequences) {
    table_of_.insert(table_of_.end(), static_cast<size_t>(s.rows),
                     int32(static_cast<int64_t>(tables_.size())));
    const auto used = static_cast<size_t>(blocks_for(s.position + s.rows));
    tables_.insert(tables_.end(), s.blocks.begin(), s.blocks.begin() + static_cast<int64_t>(used));
  }
  const StepRequest request{int32(plan.rows()),
                            int32(static_cast<int64_t>(runs_.size())),
                            int32(static_cast<int64_t>(tables_.size())),
                            plan.tokens.data(),
                            plan.positions.data(),
                            plan.scales.data(),
                            table_of_.data(),
                            tables_.data(),
                            runs_.data()};
  Failure failure{};
  check(api_.step(device_.get(), &request, &failure), failure);
}

// Rows of logits [first, first + rows).
void CudaExecutor::choose(const StepPlan& plan, int64_t first, int32_t rows, StepResult& result) {
  std::array<Wanted, kLogitRows> wanted;
  std::array<float, kLogitRows> scales;
  std::array<Chosen, kLogitRows> chosen;
  std::vector<Run> runs;
  for (int32_t i = 0; i < rows; ++i) {
    const LogitRow& row = plan.logit_rows[static_cast<size_t>(first + i)];
    wanted[static_cast<size_t>(i)] = wanted_of(row);
    scales[static_cast<size_t>(i)] = plan.scales[static_cast<size_t>(row.row)];
    const auto of = std::find_if(plan.segments.begin(), plan.segments.end(), [&](const Segment& s) {
      return row.row >= s.row && row.row < s.row + s.rows;
    });
    if (of == plan.segments.end()) continue;
    if (runs.empty() || runs.back().slot != of->slot) runs.push_back({of->slot, i, 0});
    ++runs.back().rows;
  }
  const ChooseRequest request{rows, int32(static_cast<int64_t>(runs.size())), wanted.data(), scales.data(),
                              runs.data()};
  Failure failure{};
  check(api_.choose(device_.get(), &request, chosen.data(), &failure), failure);
  for (int32_t i = 0; i < rows; ++i) {
    const auto at = static_cast<size_t>(first + i);
    result[at] = result_of(plan.logit_rows[at], i, chosen[static_cast<size_t>(i)]);
  }
}

RowResult CudaExecutor::result_of(const LogitRow& row, int32_t i, const Chosen& chosen) {
  RowResult result;
  result.finite = chosen.finite != 0;
  if (!result.finite) return result;
  if (is_for_host(row)) {
    Failure failure{};
    check(api_.logits(device_.get(), i, logits_.data(), &failure), failure);
    return sampler_.choose(logits_, row);
  }
  result.token = chosen.token;
  if (row.top < 0) return result;
  result.logprobs.emplace().logprob = chosen.logprob;
  const auto top = static_cast<size_t>(std::min<int64_t>(row.top, config_.vocab));
  for (size_t t = 0; t < top; ++t)
    result.logprobs->top.emplace_back(chosen.top_tokens[t], chosen.top_logprobs[t]);
  return result;
}

Staged CudaExecutor::stage(const StagePlan& plan, std::span<const std::byte> body) {
  const auto places = static_cast<size_t>(config_.layers * kModules);
  std::vector<StagedPage> pages(places * static_cast<size_t>(pages_max_));
  std::vector<int32_t> ranks(places);
  std::vector<float> scales(places);
  PinnedWriter writer(api_, device_.get(), [this](int64_t offset, int64_t bytes, Failure* failure) {
    return api_.copy_page(device_.get(), offset, bytes, failure);
  });
  // Rows of a factor; a page may be larger than what can be copied at a time.
  const auto write = [&](int64_t offset, const Matrix& from, int64_t cols) {
    bool is_exact = true;
    for (int64_t row = 0, rows = 0; row < from.rows; row += rows) {
      int64_t bytes =
          std::min<int64_t>(from.rows - row, std::max<int64_t>((1 << 20) / (cols * 2), 1)) * cols * 2;
      std::byte* to = writer.at(offset + row * cols * 2, bytes);
      rows = bytes / (cols * 2);
      is_exact &= write_bf16(to, from, row, row + rows, cols);
    }
    return is_exact;
  };
  Staged staged;
  for (const StageModule& m : plan.modules) {
    const int64_t in = module_in(config_, m.module), out = module_out(config_, m.module);
    const size_t place = place_of(m.layer, m.module), module = static_cast<size_t>(m.module);
    const std::vector<int32_t>& ids = plan.pages[place_of(m.layer, group_of(m.module))];
    ranks[place] = int32(m.rank);
    scales[place] = m.scale;
    bool a_exact = true, b_exact = true;
    for (int64_t page = 0; page < pages_for(m.rank); ++page) {
      const int64_t base = pages_.page(group_of(m.module), ids[static_cast<size_t>(page)]);
      const int64_t rank0 = page * kPageRanks, count = std::min(kPageRanks, m.rank - rank0);
      const StagedPage to = {base + pages_.a[module], base + pages_.b[module]};
      pages[place * static_cast<size_t>(pages_max_) + static_cast<size_t>(page)] = to;
      a_exact &= write(
          to.a, {body.data() + m.a_offset + rank0 * in * dtype_bytes(m.a_dtype), m.a_dtype, count, in, in},
          padded(in));
      b_exact &= write(
          to.b, {body.data() + m.b_offset + rank0 * dtype_bytes(m.b_dtype), m.b_dtype, out, count, m.rank},
          kPageRanks);
    }
    staged.rounded += !a_exact + !b_exact;
  }
  writer.flush();
  Failure failure{};
  check(api_.copy_slot(device_.get(), plan.slot, pages.data(), ranks.data(), scales.data(), &failure),
        failure);
  check(api_.finish(device_.get(), &failure), failure);
  return staged;
}

void CudaExecutor::poison(int slot) {
  Failure failure{};
  api_.poison(device_.get(), slot, &failure);
}

std::vector<PhaseTime> CudaExecutor::phases() const {
  return {{"step", static_cast<double>(nanoseconds_.load(std::memory_order_relaxed)) / 1e6}};
}

std::string missing() {
  try {
    Failure failure{};
    check(library().probe(&failure), failure);
    return {};
  } catch (const EngineError& error) {
    return error.what();
  }
}

std::unique_ptr<Executor> open(const ExecutorOptions& options) {
  return std::make_unique<CudaExecutor>(options, library());
}

}  // namespace lorikeet::cuda
