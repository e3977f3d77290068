// shrink or look_up, and expand, as a pair: h between them is in a form of the table's own.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "case.h"

namespace lorikeet::test {
namespace {

struct Page {
  Weights a, b;
};

// Pages of kPageRanks ranks, the last with what is left.
struct Adapter {
  std::vector<Page> pages;
  float scale;
};

constexpr size_t kPagesMax = 2;

struct Shape {
  int64_t rows, cols, outs;
};

// Consecutive rows of a part with one adapter.
struct Segment {
  int64_t first, rows;
  const Adapter* adapter;

  bool has(size_t page) const { return adapter && page < adapter->pages.size(); }
};

// Rows of h, one element off the alignment of a cache line, NaN wherever no op writes.
class Hidden {
 public:
  explicit Hidden(int64_t rows) : rows_(rows), floats_(rows * kHiddenBytes / 4) {
    std::memset(floats_.data(), 0xff, static_cast<size_t>(rows_ * kHiddenBytes));
  }
  int64_t rows() const { return rows_; }
  void* at(int64_t row) { return floats_.data() + row * kHiddenBytes / 4; }
  bool is_untouched(int64_t begin, int64_t end) {
    const auto* bytes = static_cast<const unsigned char*>(at(begin));
    return std::all_of(bytes, bytes + (end - begin) * kHiddenBytes,
                       [](unsigned char b) { return b == 0xff; });
  }

 private:
  int64_t rows_;
  Floats floats_;
};

Adapter make_adapter(Cases& cases, int64_t rank, const Shape& s) {
  // So that h is of magnitude 1.
  Adapter adapter{{}, 1.5f / std::sqrt(static_cast<float>(s.cols))};
  for (int64_t first = 0; first < rank; first += kPageRanks) {
    const int64_t ranks = rank - first < kPageRanks ? rank - first : kPageRanks;
    adapter.pages.push_back(
        {Weights(cases.random, Dtype::kF32, ranks, s.cols, cases.form.stored, round_up(s.cols, kColumnStep)),
         Weights(cases.random, Dtype::kF16, s.outs, ranks, cases.form.stored, kPageRanks)});
  }
  return adapter;
}

// What a case computes; row i has adapters[i], nullptr for none.
struct Lora {
  Shape shape;
  // The first product: look_up of tokens, or shrink of x.
  bool looks_up;
  std::vector<const Adapter*> adapters;
  Floats x;
  Indices tokens;
  Floats before, scales;
  // From row to row of y.
  int64_t stride;

  const Adapter* of(int64_t row) const { return adapters[static_cast<size_t>(row)]; }
};

// Rows that have an adapter, before it is applied. One without stays kUntouched, to the bit.
void put_before(const Lora& lora, const Part& part, Floats& y) {
  const int64_t width = panels_for(lora.shape.outs) * kPanelOuts;
  for (int64_t i = 0; i < part.count(); ++i) {
    if (!lora.of(part.row(i))) continue;
    for (int64_t o = part.begin * kPanelOuts; o < part.end * kPanelOuts; ++o) {
      y[i * lora.stride + o] = lora.before[part.row(i) * width + o];
    }
  }
}

std::vector<Segment> segments_of(const Lora& lora, const Part& part) {
  std::vector<Segment> segments;
  for (int64_t i = 0; i < part.count(); ++i) {
    const Adapter* adapter = lora.of(part.row(i));
    if (segments.empty() || segments.back().adapter != adapter) segments.push_back({i, 0, adapter});
    ++segments.back().rows;
  }
  return segments;
}

// h of the segments that have this page.
Hidden first_products(const Ops& ops, const Lora& lora, const Part& part,
                      const std::vector<Segment>& segments, size_t page) {
  Layout layout = activation_layout(lora.shape.cols, part.count());
  for (const Segment& g : segments) layout.rows = std::max(layout.rows, g.first + round_up(g.rows, kRowStep));
  Elements rows = lay_out(ops.x, lora.x, part, layout);
  Floats scales(part.count());
  Indices tokens(part.count());
  for (int64_t i = 0; i < part.count(); ++i) {
    scales[i] = lora.scales[part.row(i)];
    tokens[i] = lora.tokens[part.row(i)];
  }
  Hidden h(layout.rows);
  // The last first: what a segment writes beyond itself spoils the next one.
  for (auto g = segments.rbegin(); g != segments.rend(); ++g) {
    if (!g->has(page)) continue;
    const Panels a = g->adapter->pages[page].a.panels();
    const float scale =
        g->adapter->scale * (lora.looks_up ? std::sqrt(static_cast<float>(lora.shape.cols)) : 1);
    if (lora.looks_up) {
      ops.look_up(h.at(g->first), tokens.data() + g->first, g->rows, scale, scales.data() + g->first, a);
    } else {
      ops.shrink(h.at(g->first), {rows.data(g->first * layout.stride), layout.stride, g->rows}, scale,
                 scales.data() + g->first, a);
    }
  }
  return h;
}

void add_page(const Ops& ops, const Lora& lora, const Part& part, size_t page, Floats& y) {
  const std::vector<Segment> segments = segments_of(lora, part);
  Hidden h = first_products(ops, lora, part, segments, page);
  bool spoilt = !h.is_untouched(part.count(), h.rows());
  for (const Segment& g : segments) {
    if (!g.has(page)) spoilt |= !h.is_untouched(g.first, g.first + g.rows);
  }
  for (const Segment& g : segments) {
    if (!g.has(page)) continue;
    ops.expand(y.data() + g.first * lora.stride + part.begin * kPanelOuts, lora.stride, h.at(g.first), g.rows,
               g.adapter->pages[page].b.panels(), part.begin, part.end);
  }
  // No result shows this one, so make one wrong.
  if (spoilt) y[0] = INFINITY;
}

void lora_case(Cases& cases, const std::string& who, const Shape& s,
               const std::vector<const Adapter*>& adapters, bool looks_up) {
  Case c{.name = (looks_up ? "look_up and expand, " : "shrink and expand, ") + who +
                 text({{"rows", s.rows}, {"cols", s.cols}, {"outs", s.outs}}),
         .rows = s.rows,
         .outs = panels_for(s.outs),
         .unit = kPanelOuts};
  c.stride = c.outs * c.unit + 3;
  // Two bfloat16 keep 16 bits of h, of which kPageRanks are summed.
  c.tolerance = cases.form.x == Dtype::kBF16 ? Tolerance{1e-4f, 1e-5f} : kSums;
  Lora lora{s,
            looks_up,
            adapters,
            cases.random.numbers(s.rows * s.cols, 1, cases.form.x),
            Indices(s.rows),
            cases.random.numbers(s.rows * c.outs * c.unit),
            cases.random.numbers(s.rows),
            c.stride};
  // Row 1 of three or more is NaN.
  for (int64_t k = 0; s.rows >= 3 && k < s.cols; ++k) lora.x[s.cols + k] = NAN;
  if (s.rows >= 3 && looks_up) lora.scales[1] = NAN;
  for (int64_t i = 0; i < s.rows; ++i) lora.tokens[i] = static_cast<int32_t>(cases.random.below(s.cols));
  lora.tokens[s.rows - 1] = static_cast<int32_t>(s.cols - 1);
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    put_before(lora, part, y);
    for (size_t page = 0; page < kPagesMax; ++page) add_page(ops, lora, part, page, y);
  };
  cases.visit(c);
}

void same_adapter(Cases& cases, int64_t rank, const Shape& s, bool looks_up = false) {
  const Adapter adapter = make_adapter(cases, rank, s);
  lora_case(cases, "rank " + std::to_string(rank), s,
            std::vector<const Adapter*>(static_cast<size_t>(s.rows), &adapter), looks_up);
}

// Runs of rows with adapters of many ranks beside rows with none. `longest`: rows of a run, at most.
void mixed_adapters(Cases& cases, const Shape& s, int64_t longest, bool looks_up = false) {
  std::vector<Adapter> all;
  for (int64_t rank : {16, 1, 4, 20, 8, 15}) all.push_back(make_adapter(cases, rank, s));
  std::vector<const Adapter*> adapters;
  for (size_t turn = 0; static_cast<int64_t>(adapters.size()) < s.rows; ++turn) {
    const Adapter* adapter = turn % 7 == 1 ? nullptr : &all[turn % all.size()];
    adapters.insert(adapters.end(), static_cast<size_t>(1 + cases.random.below(longest)), adapter);
  }
  adapters.resize(static_cast<size_t>(s.rows));
  lora_case(cases, "mixed, runs of " + std::to_string(longest), s, adapters, looks_up);
}

}  // namespace

void lora_cases(Cases& cases) {
  const std::vector<int64_t> cols = {7, 32, 96, 100}, outs = {1, 16, 33, 80};
  std::vector<int64_t> ranks = {1, 4, 8, 15, 16, 32}, rows = {1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 31, 33};
  if (cases.quick) ranks = {4, 16}, rows = {1, 3, 5, 7, 17, 33};
  size_t turn = 0;
  for (int64_t rank : ranks) {
    for (int64_t n : rows) {
      same_adapter(cases, rank, {n, cols[turn % cols.size()], outs[turn / cols.size() % outs.size()]});
      ++turn;
    }
    for (int64_t n : {1, 17}) same_adapter(cases, rank, {n, 41, 33}, true);
  }
  mixed_adapters(cases, {33, 80, 48}, 1);
  mixed_adapters(cases, {33, 64, 17}, 5);
  mixed_adapters(cases, {cases.quick ? 49 : 133, 100, 80}, 30);
  mixed_adapters(cases, {33, 100, 48}, 5, true);
  if (cases.quick) return;
  same_adapter(cases, 16, {5, 2080, 64});
  same_adapter(cases, 8, {64, 2049, 133});
}

}  // namespace lorikeet::test
