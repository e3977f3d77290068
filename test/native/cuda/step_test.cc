// Whole steps of the CUDA backend on the emulated device, or of the library that LORIKEET_CUDA_LIBRARY names,
// against the reference backend and against themselves: each request alone and in company, bit for bit.
// `step_test [--quick | --long] [--stop] [--library] [--seed N] [--only NAME]`; the last line counts.
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "executor/backends.h"
#include "executor/cpu/cpu_executor.h"
#include "executor/cuda/cuda_executor.h"
#include "executor/cuda/library.h"
#include "executor/cuda/simt/simt.h"
#include "random_model.h"

extern "C" const lorikeet::cuda::Api* lorikeet_cuda_api();

namespace lorikeet::test {
namespace {

struct Request {
  std::vector<int32_t> prompt;
  int slot = -1;
  float scale = 1;
};
struct Answer {
  std::vector<double> prompt_scores, scores;  // the prompt's, then of each token the most likely ones
  std::vector<int32_t> tokens;
  bool operator==(const Answer&) const = default;
};

constexpr int64_t kTop = 5;
constexpr int64_t kRowsMax = 160, kFewRows = 11, kManyRows = 65;  // the last takes other tiles
constexpr int64_t kSlots = 4, kMaxRank = 40;

// One executor, its adapters and its sequences, stepped as the engine would.
class Run {
 public:
  Run(std::unique_ptr<Executor> executor, const ModelConfig& config, const std::map<int, Adapter>& adapters,
      int64_t rows_max = kRowsMax)
      : executor_(std::move(executor)), rows_max_(rows_max) {
    std::array<int32_t, kGroups> next{};
    for (const auto& [slot, adapter] : adapters) stage(slot, adapter, config, next);
  }
  Executor& executor() { return *executor_; }

  // Into pages from `next` on, of each group.
  void stage(int slot, const Adapter& adapter, const ModelConfig& config,
             std::array<int32_t, kGroups>& next) {
    std::vector<std::vector<int32_t>> pages(static_cast<size_t>(config.layers * kGroups));
    for (const StageModule& m : adapter.modules) {
      const Group group = group_of(m.module);
      std::vector<int32_t>& ids = pages[place_of(m.layer, group)];
      while (static_cast<int64_t>(ids.size()) < pages_for(m.rank))
        ids.push_back(next[static_cast<size_t>(group)]++);
    }
    executor_->stage({slot, adapter.modules, pages}, adapter.body);
  }

  // The next answer gets the cache's blocks that the first one had, with what is in them.
  void use_blocks_again() { next_block_ = 0; }

  // `count` tokens of each: as many rows of all as a step has room for, at most `chunk` of each.
  std::vector<Answer> answer(const std::vector<Request>& requests, int64_t chunk, int count) {
    sequences_.clear();
    for (const Request& request : requests) {
      Sequence s{request, request.prompt, {}, 0, {}};
      for (int64_t i = 0; i < blocks_for(static_cast<int64_t>(s.tokens.size()) + count); ++i) {
        s.blocks.push_back(static_cast<int32_t>((next_block_ += 7) % executor_->limits().kv_blocks));
      }
      sequences_.push_back(std::move(s));
    }
    while (step(chunk, static_cast<size_t>(count))) {
    }
    std::vector<Answer> answers;
    for (Sequence& s : sequences_) answers.push_back(std::move(s.answer));
    return answers;
  }

 private:
  struct Sequence {
    Request request;
    std::vector<int32_t> tokens;
    std::vector<int32_t> blocks;
    int64_t computed = 0;
    Answer answer;
  };

  // False once all have `count` tokens.
  bool step(int64_t chunk, size_t count) {
    StepPlan plan;
    std::vector<Sequence*> of_logits, order;
    for (Sequence& s : sequences_) {
      if (s.answer.tokens.size() < count) order.push_back(&s);
    }
    std::stable_sort(order.begin(), order.end(),
                     [](const Sequence* a, const Sequence* b) { return a->request.slot < b->request.slot; });
    static const SamplingParams kGreedy;
    for (Sequence* s : order) {
      const int64_t left = static_cast<int64_t>(s->tokens.size()) - s->computed;
      const int64_t rows = std::min({left, chunk, rows_max_ - plan.rows()});
      if (rows <= 0) continue;
      const int64_t first = plan.rows();
      for (int64_t i = s->computed; i < s->computed + rows; ++i) {
        plan.tokens.push_back(s->tokens[static_cast<size_t>(i)]);
        plan.positions.push_back(static_cast<int32_t>(i));
        plan.scales.push_back(s->request.scale);
      }
      plan.sequences.push_back({first, rows, s->computed, s->blocks});
      if (s->request.slot >= 0) {
        if (plan.segments.empty() || plan.segments.back().slot != s->request.slot) {
          plan.segments.push_back({s->request.slot, first, 0});
        }
        plan.segments.back().rows += rows;
      }
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t position = s->computed + i;
        const bool is_last = position + 1 == static_cast<int64_t>(s->tokens.size());
        if (!is_last && position % 8 != 7) continue;
        LogitRow wanted;
        wanted.row = first + i;
        wanted.scored = is_last ? -1 : s->tokens[static_cast<size_t>(position) + 1];
        wanted.top = kTop;
        wanted.sampling = is_last ? &kGreedy : nullptr;
        wanted.tokens = s->tokens;
        plan.logit_rows.push_back(wanted);
        of_logits.push_back(s);
      }
      s->computed += rows;
    }
    if (plan.rows() == 0) return false;
    StepResult result;
    executor_->step(plan, result, [] {});
    for (size_t i = 0; i < result.size(); ++i) {
      Sequence& s = *of_logits[i];
      const RowResult& row = result[i];
      if (!row.finite) {
        s.answer.prompt_scores.push_back(-INFINITY);
        if (plan.logit_rows[i].scored < 0) s.answer.tokens.push_back(-1);
        continue;
      }
      s.answer.prompt_scores.push_back(row.logprobs->logprob);
      if (plan.logit_rows[i].scored >= 0) continue;
      s.answer.tokens.push_back(row.token);
      for (const auto& [token, logprob] : row.logprobs->top) s.answer.scores.push_back(logprob);
      pending_.push_back({&s, row.token});
    }
    for (const auto& [s, token] : std::exchange(pending_, {})) s->tokens.push_back(token);
    return true;
  }

  std::unique_ptr<Executor> executor_;
  const int64_t rows_max_;
  std::vector<Sequence> sequences_;
  std::vector<std::pair<Sequence*, int32_t>> pending_;
  int64_t next_block_ = 0;
};

struct Check {
  int passed = 0, failed = 0;
  bool stops = false;  // at the first failure
  void expect(bool holds, const std::string& what) {
    ++(holds ? passed : failed);
    if (holds) return;
    std::printf("FAILED %s\n", what.c_str());
    if (stops) std::exit(1);
  }
};

// Of log-probabilities, as a part of the largest.
double distance(const Answer& a, const Answer& b) {
  if (a.prompt_scores.size() != b.prompt_scores.size()) return INFINITY;
  double worst = 0, largest = 0;
  // The reference may choose another token where two are as likely; what follows is another text.
  const size_t prompt = a.prompt_scores.size() - a.tokens.size() + 1;
  for (size_t i = 0; i < prompt; ++i) {
    const double d = std::fabs(a.prompt_scores[i] - b.prompt_scores[i]);
    if (!(d <= worst)) worst = d;
    largest = std::max(largest, std::fabs(b.prompt_scores[i]));
  }
  return worst / std::max(largest, 8.0);  // what logits are of the magnitude of
}

struct Options {
  bool quick = false;
  bool is_long = false;     // contexts of more than one split as the library has it
  bool is_library = false;  // what LORIKEET_CUDA_LIBRARY names
};

class Suite {
 public:
  Suite(const Shape& shape, const Options& options, Check& check)
      : shape_(shape), options_(options), quick_(options.quick), check_(check), file_(shape) {
    const auto& c = file_.descriptor.config;
    adapters_[0] = random_adapter(c, 1, [](int64_t, Module m) { return is_in_layers(group_of(m)) ? 16 : 0; });
    // Mixed ranks, some modules in some layers, embedding and head.
    adapters_[1] = random_adapter(c, 2, [](int64_t layer, Module m) {
      constexpr int64_t kRanks[kModules] = {40, 3, 17, 8, 33, 16, 1, 5, 9};
      return (static_cast<int64_t>(m) + layer) % 4 == 3 ? 0 : kRanks[static_cast<size_t>(m)];
    });
    // Of one layer, whose module no other layer has.
    adapters_[2] =
        random_adapter(c, 3, [](int64_t layer, Module m) { return layer == 1 && m == Module::kO ? 8 : 0; });
    // Of no layer.
    adapters_[3] = random_adapter(c, 4, [](int64_t, Module m) {
      return m == Module::kHead ? 4 : m == Module::kEmbed ? 5 : 0;
    });
  }

  void run() {
    const std::vector<Request> requests = this->requests();
    Run cuda(open_cuda(), config(), adapters_), reference(open_reference(), config(), adapters_);
    const int count = quick_ ? 2 : 4;
    const std::vector<Answer> together = cuda.answer(requests, 1 << 20, count);
    const std::vector<Answer> right = reference.answer(requests, 1 << 20, count);
    double worst = 0;
    for (size_t i = 0; i < requests.size(); ++i) {
      const double d = distance(together[i], right[i]);
      if (!(d <= worst)) worst = d;
    }
    // bf16 rounds x, h, q, k, v and the weights of attention; the reference none of them.
    check_.expect(worst < kTolerance, name("agrees with the reference: " + std::to_string(worst)));
    std::printf("%s: %zu requests, worst distance of log-probabilities %.4f\n", shape_.name, requests.size(),
                worst);
    for (size_t i = 0; i < requests.size(); ++i) {
      if (quick_ && i != 1) continue;
      check_.expect(cuda.answer({requests[i]}, 1 << 20, count)[0] == together[i],
                    name("request " + std::to_string(i) + " alone is as in company"));
    }
    expect_idle_jobs(cuda, reference);
    if (quick_) return;
    Run chunked(open_cuda(kFewRows), config(), adapters_, kFewRows);
    check_.expect(chunked.answer(requests, 5, count) == together,
                  name("chunks of the prompt change nothing"));
    expect_poison(requests[1]);
  }

 private:
  static constexpr double kTolerance = 0.03;

  std::string name(const std::string& what) const { return std::string(shape_.name) + ": " + what; }
  const ModelConfig& config() const { return file_.descriptor.config; }

  std::vector<Request> requests() const {
    Random random(11);
    std::vector<Request> requests;
    // A block, a split and their borders; one longer than a tile of many rows. Those of 17 and 18 tokens
    // share a slot, so that their rows look like one prompt's.
    std::vector<int> lengths = {1, 18, 2};
    if (!quick_) lengths = {1, 15, 16, 17, 31, 32, 33, 40, 18, 150, 65, 3, 3, 3};
    if (options_.is_long) lengths = {1, 16, 65, 255, 256, 257, 300, 520, 700, 3, 3, 3};
    for (size_t i = 0; i < lengths.size(); ++i) {
      Request r;
      for (int t = 0; t < lengths[i]; ++t) {
        r.prompt.push_back(
            static_cast<int32_t>((random.number() + 1) / 2 * static_cast<float>(shape_.vocab - 1)));
      }
      r.slot = static_cast<int>(i % (kSlots + 1)) - 1;
      r.scale = i % 2 == 0 ? 1.0f : 0.5f;
      requests.push_back(std::move(r));
    }
    return requests;
  }

  ExecutorOptions options(Compute compute, int64_t rows_max = kRowsMax) const {
    ExecutorOptions options;
    options.model = file_.descriptor;
    options.slots = kSlots;
    options.max_rank = kMaxRank;
    options.kv_bytes = 4 << 20;
    options.max_batch = rows_max;
    options.max_batch_tokens = rows_max;
    options.compute = compute;
    return options;
  }
  std::unique_ptr<Executor> open_cuda(int64_t rows_max = kRowsMax) const {
    return std::make_unique<cuda::CudaExecutor>(options(Compute::kBfloat16, rows_max),
                                                options_.is_library ? cuda::library() : *lorikeet_cuda_api());
  }
  std::unique_ptr<Executor> open_reference() const { return cpu::open_reference(options(Compute::kFloat32)); }

  // Steps of many rows, in most of which no block has a product with A to do.
  void expect_idle_jobs(Run& cuda, Run& reference) {
    const Request many = {std::vector<int32_t>(kManyRows, 2), 2, 1.0f};
    const double d = distance(cuda.answer({many}, 1 << 20, 1)[0], reference.answer({many}, 1 << 20, 1)[0]);
    check_.expect(d < kTolerance, name("grids whose jobs have nothing to do: " + std::to_string(d)));
  }

  // Of a freed slot: it has no ranks, what still reads its pages is not finite, and who gets them next does
  // not see what they held.
  void expect_poison(const Request& request) {
    Run cuda(open_cuda(), config(), {}), fresh(open_cuda(), config(), {});
    std::array<int32_t, kGroups> first{}, same{}, others{}, again{}, alone{};
    cuda.stage(0, adapters_.at(0), config(), first);
    cuda.stage(1, adapters_.at(0), config(), same);
    cuda.executor().poison(0);
    cuda.stage(2, {}, config(), others);  // what was begun before has landed then
    const auto ask = [&](Run& run, int slot, int more = 0) {
      Request asked = request;
      asked.slot = slot;
      asked.prompt.insert(asked.prompt.end(), static_cast<size_t>(more), 1);
      return run.answer({asked}, 1 << 20, 1)[0];
    };
    const Answer base = ask(cuda, -1);
    check_.expect(ask(cuda, 0) == base, name("a poisoned slot has no ranks"));
    cuda.use_blocks_again();
    check_.expect(ask(cuda, 1, 1).prompt_scores.back() == -INFINITY,
                  name("what is left in its pages is not finite"));
    cuda.use_blocks_again();
    check_.expect(ask(cuda, -1) == base, name("what lies in the cache past the context is not seen"));
    cuda.stage(3, adapters_.at(1), config(), again);
    fresh.stage(3, adapters_.at(1), config(), alone);
    check_.expect(ask(cuda, 3) == ask(fresh, 3), name("fewer ranks in pages that were another's"));
  }

  const Shape shape_;
  const Options options_;
  const bool quick_;
  Check& check_;
  const ModelFile file_;
  std::map<int, Adapter> adapters_;
};

// Widths that fill no tile, and those of the models that are served, in small.
constexpr Shape kShapes[] = {
    {"llama", 2, 128, 8, 2, 64, 288, 97, false, false, false},
    {"odd", 3, 72, 6, 3, 20, 200, 131, true, false, true},
    {"qwen3", 2, 96, 4, 2, 128, 96, 1031, false, true, false},
    {"many heads", 2, 64, 18, 2, 16, 1312, 64, false, false, true},
    {"no groups", 2, 64, 2, 2, 80, 64, 64, false, false, false},
};

int main(int argc, char** argv) {
  Options options;
  Check check;
  std::string only;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--quick") options.quick = true;
    if (arg == "--long") options.is_long = true;
    if (arg == "--library") options.is_library = true;
    if (arg == "--stop") check.stops = true;
    if (arg == "--only" && i + 1 < argc) only = argv[++i];
    if (arg == "--seed" && i + 1 < argc) simt::seed(std::strtoull(argv[++i], nullptr, 10));
  }
  for (const Shape& shape : kShapes) {
    if (only.empty() || only == shape.name) Suite(shape, options, check).run();
  }
  std::printf("%d passed, %d failed\n", check.passed, check.failed);
  return check.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace lorikeet::test

int main(int argc, char** argv) { return lorikeet::test::main(argc, argv); }
