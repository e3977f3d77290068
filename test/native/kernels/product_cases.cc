#include <cmath>

#include "case.h"

namespace lorikeet::test {
namespace {

struct Shape {
  int64_t rows, cols, outs;
};

void product_case(Cases& cases, const Shape& s, Dtype source, Dtype panels) {
  const int64_t padded = round_up(s.cols, kColumnStep);
  // So that the longest sums are of the magnitude that kSums is for.
  const float scale = s.cols > 1000 ? 0.25f : 1;
  Floats x = cases.random.numbers(s.rows * s.cols, scale, cases.form.x);
  // Row 1 of three or more is NaN: a neighbour must not notice.
  for (int64_t k = 0; s.rows >= 3 && k < s.cols; ++k) x[s.cols + k] = NAN;
  const Weights w(cases.random, source, s.outs, s.cols, panels, padded);
  Case c{.name = std::string("product ") + name_of(source) + " as " + name_of(panels) +
                 text({{"rows", s.rows}, {"cols", s.cols}, {"outs", s.outs}}),
         .rows = s.rows,
         .outs = panels_for(s.outs),
         .unit = kPanelOuts};
  c.stride = c.outs * c.unit + 3;
  c.tolerance = kSums;
  c.run = [&](const Ops& ops, const Part& part, Floats& y) {
    const Layout layout = activation_layout(s.cols, part.count());
    Elements rows = lay_out(ops.x, x, part, layout);
    const Rows from = {rows.data(), layout.stride, part.count()};
    float* to = y.data() + part.begin * kPanelOuts;
    // A part of the outputs takes the columns in two parts as well.
    const bool is_whole = part.begin == 0 && part.end == panels_for(s.outs);
    const int64_t cut = is_whole || ops.columns == 0 ? 0 : padded / 2 / kColumnStep * kColumnStep;
    if (cut > 0) ops.product(to, c.stride, from, w.panels(), {part.begin, part.end, 0, cut});
    ops.product(to, c.stride, from, w.panels(), {part.begin, part.end, cut, padded});
  };
  cases.visit(c);
}

void visit_shape(Cases& cases, const Shape& shape, bool all_sources) {
  product_case(cases, shape, Dtype::kBF16, Dtype::kBF16);
  if (cases.form.stored == Dtype::kF32) product_case(cases, shape, Dtype::kF32, Dtype::kF32);
  if (!all_sources) return;
  product_case(cases, shape, Dtype::kF16, cases.form.stored);
  product_case(cases, shape, cases.form.stored == Dtype::kF32 ? Dtype::kBF16 : Dtype::kF32,
               cases.form.stored);
}

}  // namespace

// Tiles follow rows and outputs, so those are crossed; the loop over columns is the same in each tile.
void product_cases(Cases& cases) {
  const std::vector<int64_t> few_cols = {1, 7, 32, 80, 96, 100};
  std::vector<int64_t> rows_of_cases = {1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 31, 33, 64, 133};
  std::vector<int64_t> outs_of_cases = {1, 15, 16, 17, 48, 64, 80, 133};
  if (cases.quick) {
    rows_of_cases = {1, 2, 3, 4, 5, 6, 7, 16, 17, 33, 49};
    outs_of_cases = {1, 33, 80};
  }
  size_t turn = 0;
  for (int64_t rows : rows_of_cases) {
    for (int64_t outs : outs_of_cases) {
      visit_shape(cases, {rows, few_cols[turn++ % few_cols.size()], outs}, outs == 17);
    }
  }
  visit_shape(cases, {1, 2080, 64}, true);
  visit_shape(cases, {cases.quick ? 7 : 33, 2049, 33}, !cases.quick);
}

}  // namespace lorikeet::test
